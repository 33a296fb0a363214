"""The student's model and the layers that it starts from."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.training.distillation.student import check_start, start_from, student_of, with_layers
from bertjax.training.distillation.teacher import Teacher
from tests.factory import SMALL_MODEL, small_config
from tests.families.tiny import tiny
from tests.training.distillation.models import TEACHER_MODEL, random_params


def teacher_of(model):
    return Teacher(epath.Path("run"), epath.Path("run/checkpoints/0"), small_config(model=model))


def config_of(layers=2, **settings):
    """A student's configuration, with this number of layers."""
    distill = {"teacher": "run", "cosine_weight": 1.0, **settings}
    return small_config(model={"num_hidden_layers": layers}).replace(distill=distill)


def test_a_student_is_its_teacher_with_half_the_layers_and_the_heads_that_are_trained():
    teacher = teacher_of(TEACHER_MODEL)
    student = student_of(config_of(), teacher)
    assert student.config.model == dataclasses.replace(TEACHER_MODEL, num_hidden_layers=2)
    assert student.tokenizer_dir == epath.Path("run/tokenizer")
    asked = config_of(teacher_layers=(1, 2, 4))
    assert student_of(asked, teacher).config.model.num_hidden_layers == 3
    text_alone = config_of().replace(data={"sentence_objective": "none"})
    assert student_of(text_alone, teacher).config.model.heads == ("mlm",)
    vectors = config_of(objective_weight=0.0, soft_weight=0.0)
    assert student_of(vectors, teacher).config.model.heads == ()
    own = config_of(student_from_teacher=False)
    assert student_of(own, teacher).config.model == own.model


def test_layers_are_every_second_one_unless_they_are_named():
    found = with_layers(config_of(2), TEACHER_MODEL)
    assert found.distill.teacher_layers == (2, 4)
    assert with_layers(config_of(4), TEACHER_MODEL).distill.teacher_layers == (1, 2, 3, 4)
    named = config_of(2, teacher_layers=(1, 4))
    assert with_layers(named, TEACHER_MODEL).distill.teacher_layers == (1, 4)
    # Nothing needs the layers, so any number of them is a student.
    free = config_of(3, start="random")
    assert with_layers(free, TEACHER_MODEL) == free


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        (3, {}, "model.num_hidden_layers: found 3, expected a divisor of the teacher's 4"),
        (8, {}, "model.num_hidden_layers: found 8, expected a divisor of the teacher's 4"),
        (3, {"start": "random", "hidden_weight": 1.0}, "found 3, expected a divisor"),
        (3, {"teacher_layers": (1, 2)}, "found 2 layers, expected one for each of the student's 3"),
        (2, {"teacher_layers": (2, 5)}, "found 5, expected at most 4, the teacher's layers"),
    ],
)
def test_layers_that_cannot_be_mapped_are_refused(layers, settings, message):
    with pytest.raises(UserError) as error:
        with_layers(config_of(layers, **settings), TEACHER_MODEL)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [(2, 2), (4, 2), (0, 1)])
def test_layers_that_do_not_ascend_are_refused(layers):
    with pytest.raises(UserError, match="distill.teacher_layers: .*expected ascending numbers"):
        config_of(2, teacher_layers=layers)


def test_a_student_starts_from_the_layers_the_embeddings_and_its_heads():
    params = random_params(TEACHER_MODEL, 0)
    student = dataclasses.replace(SMALL_MODEL, heads=("mlm",))
    settings = with_layers(config_of(2), TEACHER_MODEL).distill
    check_start(settings, student, TEACHER_MODEL)
    started = start_from(settings, student, params)
    assert set(started) == {"embeddings", "encoder", "mlm"}
    shapes = functional.shapes(student)
    assert jax.tree.map(np.shape, started) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    layers = zip(
        jax.tree.leaves(started["encoder"]["layers"]),
        jax.tree.leaves(params["encoder"]["layers"]),
        strict=True,
    )
    for own, taught in layers:
        assert np.array_equal(own, taught[[1, 3]])
    for group in ("embeddings", "mlm"):
        jax.tree.map(np.testing.assert_array_equal, started[group], params[group])


def test_a_start_that_does_not_fit_names_the_parameter_or_the_layer():
    settings = with_layers(config_of(2), TEACHER_MODEL).distill
    narrow = dataclasses.replace(SMALL_MODEL, intermediate_size=8)
    with pytest.raises(UserError, match=r"encoder/layers/mlp/.*: found \[2, 32, 16\] in the teach"):
        check_start(settings, narrow, TEACHER_MODEL)
    # Layer 1 of each three sees the whole row, the others see a window.
    windows = tiny("modernbert")
    student = dataclasses.replace(windows, num_hidden_layers=2)
    chosen = dataclasses.replace(settings, teacher_layers=(2, 3))
    with pytest.raises(UserError, match="found layer 2 with local attention, expected one with gl"):
        check_start(chosen, student, windows)
    check_start(dataclasses.replace(settings, teacher_layers=(1, 3)), student, windows)


def test_layers_that_share_their_parameters_are_one_whatever_their_number():
    shared = dataclasses.replace(TEACHER_MODEL, share_layers=True)
    student = dataclasses.replace(shared, num_hidden_layers=2)
    settings = with_layers(config_of(2), shared).distill
    check_start(settings, student, shared)
    params = random_params(shared, 0)
    started = start_from(settings, student, params)
    jax.tree.map(
        np.testing.assert_array_equal, started["encoder"]["layers"], params["encoder"]["layers"]
    )
