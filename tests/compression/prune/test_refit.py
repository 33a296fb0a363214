"""Last layers that are solved anew, on models in which the solution is known."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.compression.prune.masks import masked, ones, with_masks
from bertjax.compression.prune.refit import grams, refitted
from bertjax.compression.prune.structure import cut, everything
from bertjax.finetuning.objective import TaskObjective
from bertjax.model import functional
from bertjax.tasks.classification.single_label import SingleLabel
from tests.factory import SMALL_MODEL, random_batch
from tests.interop.exported_programs import random_params

EXAMPLES = 6
TASK = SingleLabel("good", ("no", "yes"))


def batch_of(seed):
    batch = random_batch(np.random.default_rng(seed), EXAMPLES)
    rows = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    return rows | {
        "good/labels": np.zeros(EXAMPLES, np.int32),
        "good/item_weights": np.ones(EXAMPLES, np.float32),
    }


def found_in(config, params, batches):
    objective = TaskObjective(config, (TASK,))
    heads = objective.init(jax.random.key(0))["tasks"]
    return grams(config, objective, {**params, "tasks": heads}, batches)


def without_first(config):
    """All but head 0 and unit 0 of each layer."""
    parts = everything(config)
    heads, units = ([own[1:] for own in each] for each in (parts.heads, parts.units))
    return parts._replace(heads=heads, units=units)


def twins(config, seed=0):
    """Parameters in which head 1 does what head 0 does, and unit 1 what unit 0 does."""
    params = jax.tree.map(np.array, random_params(config, seed))
    layers = params["encoder"]["layers"]
    for name in ("query", "key", "value"):
        layers["attention"][name]["kernel"][:, :, 1] = layers["attention"][name]["kernel"][:, :, 0]
        layers["attention"][name]["bias"][:, 1] = layers["attention"][name]["bias"][:, 0]
    layers["mlp"]["up"]["kernel"][..., 1] = layers["mlp"]["up"]["kernel"][..., 0]
    layers["mlp"]["up"]["bias"][..., 1] = layers["mlp"]["up"]["bias"][..., 0]
    return params


def hidden(config, params):
    batch = batch_of(9)
    inputs = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    states = np.asarray(functional.encode(config, params, inputs).hidden_BxLxD)
    return states[batch["input_mask"] == 1]


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_that_has_a_twin_costs_nothing_when_it_goes(shared, largest):
    config = dataclasses.replace(SMALL_MODEL, share_layers=shared)
    params, kept = twins(config), without_first(config)
    before = hidden(config, params)
    plain = np.abs(hidden(*cut(config, params, kept)) - before).max()
    found = found_in(config, params, [batch_of(seed) for seed in range(8)])
    after = hidden(*cut(config, refitted(config, params, kept, found), kept))
    # The damping keeps the last of it.
    largest("refitted twins", np.abs(after - before).max(), 0.01)
    assert plain > 0.1


def test_the_products_are_sums_over_real_tokens_of_all_batches():
    params = random_params(SMALL_MODEL, 0)
    one, other = batch_of(1), batch_of(2)
    both = found_in(SMALL_MODEL, params, [one, other])
    tokens = int(one["input_mask"].sum() + other["input_mask"].sum())
    assert tokens < one["input_mask"].size + other["input_mask"].size
    for products in both:
        np.testing.assert_allclose(products, np.swapaxes(products, 1, 2), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(products[:, -1, -1], tokens)
        assert (np.linalg.eigvalsh(products) > -1e-2).all()
    single = [found_in(SMALL_MODEL, params, [each]) for each in (one, other)]
    for got, first, second in zip(both, *single, strict=True):
        np.testing.assert_allclose(got, first + second, rtol=1e-6)


def test_the_mean_error_is_smaller_than_without(largest):
    config = dataclasses.replace(SMALL_MODEL, num_hidden_layers=1)
    params, kept = random_params(config, 5), without_first(config)
    batches = [batch_of(seed) for seed in range(8)]
    found = found_in(config, params, batches)
    before, errors = hidden(config, params), []
    for changed in (params, refitted(config, params, kept, found)):
        errors.append(np.mean(np.square(hidden(*cut(config, changed, kept)) - before)))
    assert errors[1] < 0.7 * errors[0]


def test_what_is_kept_whole_is_not_touched():
    params = random_params(SMALL_MODEL, 0)
    found = found_in(SMALL_MODEL, params, [batch_of(1)])
    parts = everything(SMALL_MODEL)
    same = refitted(SMALL_MODEL, params, parts, found)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    only_units = parts._replace(units=[own[1:] for own in parts.units])
    changed = refitted(SMALL_MODEL, params, only_units, found)
    for name in ("query", "output"):
        np.testing.assert_array_equal(
            changed["encoder"]["layers"]["attention"][name]["kernel"],
            params["encoder"]["layers"]["attention"][name]["kernel"],
        )
    # The unit that goes is left as it was: a mask on it and a cut say the same.
    masks = jax.tree.map(np.array, ones(SMALL_MODEL, 1))
    masks.units[..., 0] = 0
    batch = {name: value[:1] for name, value in batch_of(3).items() if "/" not in name}
    with masked():
        expected = functional.encode(SMALL_MODEL, with_masks(changed, masks), batch).hidden_BxLxD
    got = functional.encode(*cut(SMALL_MODEL, changed, only_units), batch).hidden_BxLxD
    np.testing.assert_allclose(got, expected, atol=1e-5)
