"""Runs with a teacher on prepared text: begun, killed, continued, and refused."""

import contextlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.config.phases.resolution import phases_of
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import UserError
from bertjax.training import checkpoint
from bertjax.training.distillation.distill import objective_of, take_student
from bertjax.training.integrity.restoring import saved_shapes
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.pretraining import pretraining
from bertjax.training.saved_model import load_model, save_model
from tests.tasks.tiny import TOKENIZER
from tests.tiny_library import write_library
from tests.training.checkpoints import KilledError, array_sums
from tests.training.distillation.models import random_params
from tests.waiting import until

# Each kind of term: of masked words, of layers, of projections, of relations.
TERMS = {
    "objective_weight": 1.0,
    "soft_weight": 1.0,
    "cosine_weight": 1.0,
    "hidden_weight": 1.0,
    "relation_weight": 1.0,
    "relation_heads": 4,
}


def save_teacher(folder, tokenizer, seed=0):
    config = bertjax.load_config("tiny.py").replace(model={"num_hidden_layers": 4})
    save_model(folder, config, random_params(config.model, seed), tokenizer, {})


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with prepared text and a teacher in it, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(bertjax.load_config("tiny.py"))
        save_teacher("runs/teacher", load_tokenizer(epath.Path("prepared/tiny/tokenizer")))
        yield folder


def config_of(**distill):
    config = bertjax.load_config("tiny.py").replace(
        distill={"teacher": "runs/teacher", **TERMS, **distill},
        train={"steps": 4, "eval_every_steps": 2, "save_every_steps": 2},
    )
    return config.replace(optimizer={"peak_learning_rate": 1e-3})


def test_the_mask_rate_changes_with_the_step_as_without_a_teacher(library):
    changes = {"dynamic_masking": True, "mlm_probability": 0.15, "mlm_probability_to": 0.05}
    config = config_of().replace(data=changes)
    taken, teacher = take_student(config)
    base = objective_of(taken, teacher, None).base
    assert base.masks == pretraining(config).masks == phases_of(config)[0].masks
    assert base.masks.steps == 4


@pytest.fixture(scope="module")
def undisturbed(library):
    return bertjax.train(config_of(), "runs/student")


@pytest.mark.slow
def test_a_student_has_half_the_layers_and_its_figures(library, undisturbed):
    assert undisturbed.step == 4
    model = load_model("runs/student").config.model
    assert (model.num_hidden_layers, model.heads) == (2, ("pooler", "mlm", "nsp"))
    first = read_entries(undisturbed.run_dir)[0]
    for name in ("loss", "mlm_loss", "nsp_loss", "soft_loss", "cosine_loss", "hidden_loss"):
        assert np.isfinite(first[name])
        assert np.isfinite(undisturbed.metrics[name])
    evaluated = bertjax.evaluate("runs/student").metrics
    assert evaluated["mlm_loss"] == pytest.approx(undisturbed.metrics["mlm_loss"], rel=1e-6)


@pytest.mark.slow
def test_neither_teacher_nor_its_moments_are_in_the_checkpoint(library, undisturbed):
    names = saved_shapes(undisturbed.checkpoint)
    groups = {name.split("/")[1] for name in names if name.startswith("params/")}
    assert groups == {"embeddings", "encoder", "pooler", "mlm", "nsp", "distillation"}
    assert all("teacher" not in name for name in names)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_for_bit(library, undisturbed):
    def die(stage, done, total):
        if stage == "train" and done == 3:
            until(lambda: checkpoint.steps_of(epath.Path("runs/killed")) == [2])
            raise KilledError

    with pytest.raises(KilledError):
        bertjax.train(config_of(), "runs/killed", progress=die)
    # The folder of the teacher may be another one.
    shutil.copytree("runs/teacher", "runs/moved", dirs_exist_ok=True)
    bertjax.train(config_of(teacher="runs/moved"), "runs/killed")
    assert array_sums("runs/killed") == array_sums("runs/student")


@pytest.mark.slow
def test_another_teacher_is_refused_where_a_run_goes_on(library, undisturbed):
    tokenizer = load_tokenizer(epath.Path("prepared/tiny/tokenizer"))
    save_teacher("runs/other", tokenizer, seed=1)
    longer = config_of(teacher="runs/other")
    with pytest.raises(UserError, match="distill.teacher: found teacher .*with which .*was train"):
        bertjax.train(longer, "runs/student")
    plain = bertjax.load_config(str(library / "runs" / "student" / "config.json"))
    with pytest.raises(UserError, match="distill.teacher: found teacher none, expected"):
        bertjax.train(plain.replace(distill={"teacher": ""}), "runs/student")


@pytest.mark.slow
def test_a_student_of_every_second_layer_begins_with_them(library):
    result = bertjax.train(config_of().replace(optimizer={"freeze": "encoder"}), "runs/frozen")
    own, taught = load_model(result.checkpoint).params, load_model("runs/teacher").params
    layers = zip(
        jax.tree.leaves(own["encoder"]["layers"]),
        jax.tree.leaves(taught["encoder"]["layers"]),
        strict=True,
    )
    for mine, theirs in layers:
        assert np.array_equal(mine, np.asarray(theirs)[[1, 3]])


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({}, {"num_hidden_layers": 3}, "model.num_hidden_layers: found 3, expected a divisor of"),
        ({"teacher": "runs/strange"}, {}, "the tokenizer of the data: found tokenizer"),
        ({"teacher": "runs/bare"}, {}, "runs/bare: found no tokenizer, expected that of the stu"),
        ({"teacher": "runs/nowhere"}, {}, "runs/nowhere: found no checkpoint"),
        ({}, {"hidden_size": 16}, "model.hidden_size: found 16, expected the teacher's 32, for"),
        ({"relation_heads": 5}, {}, "distill.relation_heads: found 5, expected a divisor of 32"),
    ],
    ids=["layers", "other tokenizer", "no tokenizer", "no teacher", "width", "relation heads"],
)
def test_what_does_not_fit_is_refused_in_one_line_and_leaves_nothing(
    library, settings, model, message
):
    if not (library / "runs" / "strange").exists():
        save_teacher("runs/strange", TOKENIZER)
        save_teacher("runs/bare", None)
    config = config_of(**settings).replace(model=model)
    with pytest.raises(UserError) as error:
        bertjax.train(config, "runs/refused", overrides=[f"model.{name}" for name in model])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (library / "runs" / "refused").exists()
