"""Pretraining as one objective among others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.masking.selection import Vocabulary
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.training import pretraining_loss as objectives
from bertjax.training.pretraining import check_heads, pretraining
from tests.factory import random_batch, small_config


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = functional.shapes(small_config().model)
    return jax.tree.map(
        lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes
    )


def test_a_run_begins_with_what_was_restored_and_the_rest_new():
    begun = pretraining(small_config()).initial_params({"encoder": 1, "mlm": 2}, {"encoder": 3})
    assert begun == {"encoder": 3, "mlm": 2}


def test_parameters_and_axes_are_the_models(params):
    objective = pretraining(small_config())
    assert jax.tree.structure(
        jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    ) == jax.tree.structure(params)
    leaf = lambda one: not isinstance(one, dict)  # noqa: E731
    assert jax.tree.structure(objective.logical_axes(), is_leaf=leaf) == jax.tree.structure(params)


def test_parts_of_a_batch_add_up_to_its_loss(params):
    objective, batch = pretraining(small_config()), random_batch(np.random.default_rng(1), 8)
    sums = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))
    counts = objective.counts(batch)
    whole = sums(params, batch)
    parts = [
        sums(params, {name: values[half] for name, values in batch.items()})
        for half in (slice(4), slice(4, 8))
    ]
    assert float(objective.loss(whole, counts)) == pytest.approx(
        sum(float(objective.loss(p, counts)) for p in parts), rel=1e-5
    )
    means = objective.means(whole)
    assert float(means["loss"]) == pytest.approx(float(objective.loss(whole, counts)), rel=1e-6)
    assert float(means["loss"]) == pytest.approx(
        float(means["mlm_loss"] + means["nsp_loss"]), rel=1e-6
    )
    assert isinstance(whole, objectives.Sums)


def test_a_masked_batch_stays_as_it_is_and_another_is_masked_by_the_key():
    config = small_config()
    masked = random_batch(np.random.default_rng(1), 4)
    assert pretraining(config).prepare(masked, jax.random.key(0)) is masked
    plain = {name: jnp.asarray(masked[name]) for name in ("input_ids", "input_mask", "segment_ids")}
    objective = pretraining(config, Vocabulary(4, (0, 1, 2, 3, 4), 64))
    dynamic = dataclasses.replace(
        objective, data=dataclasses.replace(config.data, dynamic_masking=True)
    )
    first, again, other = (dynamic.prepare(plain, jax.random.key(n)) for n in (0, 0, 1))
    assert {"masked_lm_ids", "masked_lm_positions", "masked_lm_weights"} <= set(first)
    assert np.array_equal(first["input_ids"], again["input_ids"])
    assert not np.array_equal(first["input_ids"], other["input_ids"])


@pytest.mark.parametrize("heads,sentences,message", [
    (("pooler", "mlm", "nsp"), "next_sentence", None),
    (("mlm",), "none", None),
    (("pooler", "mlm"), "next_sentence", "model.heads: found pooler, mlm, expected mlm and nsp too, for data.sentence_objective next_sentence"),
    ((), "none", "model.heads: found none, expected mlm too, for data.sentence_objective none"),
])  # fmt: skip
def test_the_heads_that_pretraining_needs(heads, sentences, message):
    config = small_config(model={"heads": heads}, data={"sentence_objective": sentences})
    if message is None:
        check_heads(config)
        return
    with pytest.raises(UserError) as raised:
        check_heads(config)
    assert str(raised.value) == message


def test_equal_objectives_are_one_so_that_one_program_serves_both():
    assert pretraining(small_config()) == pretraining(small_config())
    assert hash(pretraining(small_config())) == hash(pretraining(small_config()))
    assert pretraining(small_config()) != pretraining(small_config(model={"hidden_size": 32}))
