"""Pretraining with a teacher: the sum of its terms, on any mesh and in any number of parts."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.model import attention_inside, functional
from bertjax.model.functional import DISTILLATION, TEACHER
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import pretraining_loss
from bertjax.training import step as steps
from bertjax.training.distillation import terms
from bertjax.training.distillation.objective import unmasked
from bertjax.training.pretraining_loss import is_token
from tests.factory import SMALL_MODEL, small_config
from tests.training.distillation.models import (
    TEACHER_MODEL,
    distilled,
    random_params,
    uneven_batch,
    with_teacher,
)

ALL = {
    "objective_weight": 0.5,
    "soft_weight": 5.0,
    "cosine_weight": 1.0,
    "embedding_weight": 0.25,
    "hidden_weight": 2.0,
    "attention_weight": 0.125,
    "relation_weight": 3.0,
    "relation_heads": 4,
}


def summed(objective, params, batch):
    return jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, batch)


def test_the_loss_is_the_weighted_sum_of_the_terms_each_of_its_layers(largest):
    """The student's layers 1 and 2 learn from 2 and 4 of four; its width and heads are equal."""
    objective, batch = distilled(**ALL), uneven_batch()
    params = with_teacher(objective)
    means, (loss, expected), plain = jax.jit(
        lambda p, b: (
            objective.means(objective.sums(p, b, key=None, layout=ANYWHERE)),
            (loss_of_parts(objective, p, b), expected_terms(p, b)),
            pretraining_loss.pretraining_loss(SMALL_MODEL, p, b)[0],
        )
    )(params, batch)
    for term, value in expected.items():
        difference = abs(float(means[f"{term}_loss"]) - float(value)) / float(value)
        largest("distillation: terms of whole models", difference, 1e-5)
    total = 0.5 * float(plain) + 5 * float(means["soft_loss"])
    for term, value in expected.items():
        total += ALL[f"{term}_weight"] * float(value)
    largest("distillation: whole loss", abs(float(means["loss"]) - total) / total, 1e-5)
    assert float(loss) == pytest.approx(float(means["loss"]), rel=1e-6)


def loss_of_parts(objective, params, batch):
    """The loss by the counts of the batch, as the train step computes it."""
    sums = objective.sums(params, batch, key=None, layout=ANYWHERE)
    return objective.loss(sums, objective.counts(batch))


def expected_terms(params, batch):
    """The means of the terms of layers, from the vectors of both models."""
    own = functional.encode(SMALL_MODEL, params, batch, keep_layers=True)
    teacher = params[TEACHER]
    taught = functional.encode(TEACHER_MODEL, teacher, batch, keep_layers=True)
    tokens, seen = is_token(batch), terms.is_seen(batch)
    kernels = {name: part["kernel"] for name, part in params[DISTILLATION].items()}
    hidden, scores = 0.0, 0.0
    for number, other in ((1, 2), (2, 4)):
        vectors = own.layers_NxBxLxD[number - 1] @ kernels["hidden"]
        hidden += terms.square_sum(vectors, taught.layers_NxBxLxD[other - 1], tokens)
        mine = attention_inside.scores(SMALL_MODEL, params, batch, own, number)
        theirs = attention_inside.scores(TEACHER_MODEL, teacher, batch, taught, other)
        scores += terms.score_sum(mine, theirs, seen)
    mine = attention_inside.projections(SMALL_MODEL, params, own, 2)
    theirs = attention_inside.projections(TEACHER_MODEL, teacher, taught, 4)
    related = sum(
        terms.relation_sum(*pair, 4, seen, tokens) for pair in zip(mine, theirs, strict=True)
    )
    return {
        "hidden": hidden / tokens.sum(),
        "attention": scores / seen.sum(),
        "relation": related / tokens.sum(),
        "cosine": terms.cosine_sum(own.hidden_BxLxD, taught.hidden_BxLxD, tokens) / tokens.sum(),
        "embedding": terms.square_sum(
            own.embedded_BxLxD @ kernels["embeddings"], taught.embedded_BxLxD, tokens
        )
        / tokens.sum(),
    }


def test_a_student_that_is_its_teacher_learns_nothing_from_soft_targets():
    objective = distilled(TEACHER_MODEL, soft_weight=1.0)
    params, batch = random_params(TEACHER_MODEL, 3), uneven_batch()
    given = {TEACHER: jax.tree.map(np.copy, params)}

    def loss(own):
        sums = objective.sums({**own, **given}, batch, key=None, layout=ANYWHERE)
        return objective.loss(sums, objective.counts(batch))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert abs(float(value)) < 1e-6
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-6


def after_a_step(config, objective, params, batch):
    """(state, metrics) after one update on the mesh of `config`."""
    size = int(np.prod([*dataclasses.asdict(config.mesh).values()]))
    mesh = make_mesh(config.mesh, jax.devices()[:size])
    shardings = rules.tree_shardings(mesh, functional.logical_axes(objective.teacher))
    given = {TEACHER: jax.tree.map(jax.device_put, params[TEACHER], shardings)}
    own = {group: leaves for group, leaves in params.items() if group != TEACHER}
    targets = steps.state_shardings(config, mesh, objective)
    shapes = steps.abstract_state(config, mesh, objective)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = zeros._replace(params=own)
    state = jax.tree.map(jax.device_put, state, targets)
    step = steps.jit_train_step(config, mesh, objective, given)
    state, metrics = step(state, global_batch(mesh, batch, len(batch["input_ids"])))
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def alone():
    objective, batch = distilled(**ALL), uneven_batch()
    params = with_teacher(objective)
    return objective, params, batch, after_a_step(small_config(), objective, params, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}},
        {"mesh": {"data": 4, "sequence": 2}},
        {"train": {"gradient_accumulation_steps": 4}},
    ],
    ids=["eight devices", "rows cut", "four parts"],
)
def test_devices_and_parts_of_a_batch_change_no_update(alone, changes, largest):
    objective, params, batch, (state, metrics) = alone
    other, other_metrics = after_a_step(small_config(**changes), objective, params, batch)
    for name in metrics:
        size = max(1.0, abs(float(metrics[name])))
        difference = abs(float(metrics[name]) - float(other_metrics[name])) / size
        largest("distillation: metrics on meshes and in parts", difference, 1e-4)
    assert TEACHER not in other.params
    assert DISTILLATION in other.params
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True)
    # A first step of Adam has the size of the rate, 1e-2 at most, whatever the gradient's is.
    for one, two in pairs:
        assert np.allclose(one, two, atol=1e-4)


@pytest.mark.slow
def test_the_teacher_is_an_argument_of_the_program_and_has_no_moments(alone):
    objective, params, batch, (state, _) = alone
    own = {group: leaves for group, leaves in params.items() if group != TEACHER}
    sizes = sum(leaf.size for leaf in jax.tree.leaves(own))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) <= 2 * sizes + 8
    config = small_config()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = steps.abstract_state(config, mesh, objective)
    step = steps.jit_train_step(config, mesh, objective, {TEACHER: params[TEACHER]})
    lowered = step.lower(abstract, batch)
    shapes = [leaf.shape for leaf in jax.tree.leaves(lowered.args_info)]
    # 4 of its layers: no array of the student has this shape.
    assert (4, 16, 32) in shapes


def test_text_is_whole_where_no_term_looks_at_masked_words():
    whole = {"input_ids": np.arange(5, 13, dtype=np.int32).reshape(2, 4)}
    batch = {
        "input_ids": np.array([[5, 4, 7, 4], [9, 10, 11, 12]], np.int32),
        "masked_lm_positions": np.array([[1, 3, 0], [0, 0, 0]], np.int32),
        "masked_lm_ids": np.array([[6, 8, 0], [0, 0, 0]], np.int32),
        "masked_lm_weights": np.array([[1, 1, 0], [0, 0, 0]], np.float32),
    }
    restored = unmasked(batch)
    assert np.array_equal(restored["input_ids"], whole["input_ids"])
    assert unmasked(whole) is whole
    key = jax.random.key(0)
    assert distilled(cosine_weight=1.0).prepare(whole, key) is whole
    assert distilled(soft_weight=1.0).prepare(batch, key) is batch


@pytest.mark.slow
def test_new_projections_keep_equal_widths_as_they_are():
    same = jax.jit(distilled(hidden_weight=1.0).init)(jax.random.key(0))[DISTILLATION]
    assert set(same) == {"hidden"}
    assert np.array_equal(same["hidden"]["kernel"], np.eye(16))
    narrow = dataclasses.replace(SMALL_MODEL, hidden_size=8)
    both = distilled(narrow, hidden_weight=1.0, embedding_weight=1.0)
    other = jax.jit(both.init)(jax.random.key(0))
    kernels = [part["kernel"] for part in other[DISTILLATION].values()]
    assert [kernel.shape for kernel in kernels] == [(8, 16), (8, 16)]
    assert not np.array_equal(*kernels)
    assert DISTILLATION not in distilled(cosine_weight=1.0).logical_axes()


@pytest.mark.slow
def test_models_with_and_without_token_types_read_the_same_rows():
    one_type = dataclasses.replace(SMALL_MODEL, type_vocab_size=1)
    objective = distilled(one_type, cosine_weight=1.0)
    params, batch = with_teacher(objective), uneven_batch()
    assert batch["segment_ids"].max() == 1
    zero = {**batch, "segment_ids": np.zeros_like(batch["segment_ids"])}
    own = functional.encode(one_type, params, zero).hidden_BxLxD
    taught = functional.encode(TEACHER_MODEL, params[TEACHER], batch).hidden_BxLxD
    expected = terms.cosine_sum(own, taught, is_token(batch))
    found = summed(objective, params, batch).terms["cosine"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
