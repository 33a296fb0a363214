"""A model that is cut computes what the whole one does with masks of 0 and 1."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.compression.prune.masks import Masks, masked, ones, with_masks
from bertjax.compression.prune.structure import cut, everything, stack_size, whole_layers
from bertjax.config import FAMILIES
from bertjax.errors import UserError
from bertjax.model import functional
from tests.factory import SMALL_MODEL, random_batch
from tests.interop.exported_programs import COMPOSED, random_params, small_family

# Norms inside are refused: see below.
PRUNABLE = [name for name, fields in FAMILIES.items() if not fields.get("norm_inside")]
ROWS = 2


def drawn(config, groups, units, seed=0):
    """Other heads and units in each layer."""
    rng = np.random.default_rng(seed)
    shape = config.key_value_heads, config.intermediate_size
    draw = lambda total, kept: np.sort(rng.permutation(total)[:kept])  # noqa: E731
    stack = range(stack_size(config))
    return everything(config)._replace(
        heads=[draw(shape[0], groups) for _ in stack],
        units=[draw(shape[1], units) for _ in stack],
    )


def masks_of(config, kept):
    """Masks that are 1 for what is kept."""
    masks = jax.tree.map(np.zeros_like, ones(config, ROWS))
    for layer in range(stack_size(config)):
        masks.heads[layer][:, kept.heads[layer]] = 1
        masks.units[layer][:, kept.units[layer]] = 1
    return masks


def outputs(config, params):
    """Hidden states, and logits of masked words where the model has them."""
    batch = random_batch(np.random.default_rng(1), ROWS, length=8, vocab_size=config.vocab_size)
    batch = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    if config.type_vocab_size < 2:
        del batch["segment_ids"]
    hidden = functional.encode(config, params, batch).hidden_BxLxD
    if "mlm" not in config.heads:
        return hidden, hidden
    return hidden, functional.mlm_logits(config, params, hidden)


def assert_same_as_masked(config, kept, largest, name):
    params = random_params(config, 0)
    with masked():
        expected = outputs(config, with_masks(params, masks_of(config, kept)))
    smaller, smaller_params = cut(config, params, kept)
    shapes = jax.tree.map(lambda leaf: leaf.shape, functional.shapes(smaller))
    assert jax.tree.map(np.shape, smaller_params) == shapes
    got = outputs(smaller, smaller_params)
    for one, other in zip(got, expected, strict=True):
        largest(name, np.abs(one - other).max(), 1e-5)
    return smaller


@pytest.mark.parametrize("name", [
    "bert", "modernbert",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in PRUNABLE
        if name not in ("bert", "modernbert")
    ),
])  # fmt: skip
def test_a_cut_model_is_the_masked_model(name, largest):
    config = small_family(name)
    kept = drawn(config, max(config.key_value_heads - 1, 1), config.intermediate_size // 2)
    smaller = assert_same_as_masked(config, kept, largest, name)
    assert smaller.head_width == config.head_width
    assert smaller.intermediate_size == config.intermediate_size // 2


def test_heads_that_share_keys_go_together(largest):
    config = COMPOSED["rotary"]
    smaller = assert_same_as_masked(config, drawn(config, 1, 5), largest, "groups of heads")
    assert (smaller.num_attention_heads, smaller.num_key_value_heads) == (2, 1)


@pytest.mark.slow
def test_a_value_gate_and_own_relative_projections_lose_the_same_heads(largest):
    config = dataclasses.replace(COMPOSED["relative"], norm_inside=False, layer_mix=False)
    assert config.value_gate
    assert_same_as_masked(config, drawn(config, 1, 7), largest, "gate, own projections")


def test_what_has_no_effect_changes_nothing_when_it_goes(largest):
    config = SMALL_MODEL
    params = jax.tree.map(np.array, random_params(config, 3))
    layers = params["encoder"]["layers"]
    kept = drawn(config, 1, 20, seed=4)
    for layer in range(config.num_hidden_layers):
        gone = np.setdiff1d(np.arange(config.num_attention_heads), kept.heads[layer])
        layers["attention"]["output"]["kernel"][layer, gone] = 0
        gone = np.setdiff1d(np.arange(config.intermediate_size), kept.units[layer])
        layers["mlp"]["down"]["kernel"][layer, gone] = 0
    before = outputs(config, params)
    after = outputs(*cut(config, params, kept))
    for one, other in zip(before, after, strict=True):
        largest("parts without effect", np.abs(one - other).max(), 3e-6)


def test_fewer_layers_are_those_that_stay_one_after_another(largest):
    config = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4)
    params = random_params(config, 0)
    smaller, cut_params = cut(config, params, whole_layers(config, np.array([0, 3])))
    by_hand = jax.tree.map(lambda leaf: leaf[np.array([0, 3])], params["encoder"]["layers"])
    expected = {**params, "encoder": {**params["encoder"], "layers": by_hand}}
    for one, other in zip(outputs(smaller, cut_params), outputs(smaller, expected), strict=True):
        largest("layers", np.abs(one - other).max(), 0)


def without_layers(config, *layers):
    return whole_layers(config, np.array(layers))


@pytest.mark.parametrize(("config", "kept", "message"), [
    (COMPOSED["relative"], lambda c: drawn(c, 1, 4), "model.norm_inside: found True, expected fal"),
    (COMPOSED["relative"], lambda c: without_layers(c, 0), "model.layer_mix: found True, expected"),
    (COMPOSED["rotary"], lambda c: without_layers(c, 1), "layers: found 1, expected layer 0 among"),
    (dataclasses.replace(COMPOSED["rotary"], num_hidden_layers=4),
     lambda c: without_layers(c, 0, 2), "layers: found 0, 2, expected layers of which every 2"),
])  # fmt: skip
def test_what_cannot_be_taken_out_is_refused(config, kept, message):
    with pytest.raises(UserError, match=message):
        cut(config, random_params(config, 0), kept(config))


def test_masks_of_one_change_nothing(largest):
    params = random_params(SMALL_MODEL, 0)
    with masked():
        got = outputs(SMALL_MODEL, with_masks(params, ones(SMALL_MODEL, ROWS)))
    for one, other in zip(got, outputs(SMALL_MODEL, params), strict=True):
        largest("masks of one", np.abs(one - other).max(), 0)
    assert isinstance(ones(SMALL_MODEL, 1), Masks)
