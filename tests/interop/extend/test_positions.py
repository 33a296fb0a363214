import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import family
from bertjax.errors import UserError
from bertjax.interop.checkpoints.families.matching import matching_family
from bertjax.interop.extend.positions import change_rotary_bases, extend_positions
from bertjax.model import functional
from bertjax.model.attention.relative_attention import bucket_indices
from tests.factory import SMALL_MODEL, random_batch

MODEL = SMALL_MODEL
PARAMS = jax.device_get(functional.init(MODEL, jax.random.key(0)))


def positions(params):
    return np.asarray(params["embeddings"]["position"]["embedding"])


def batch(length=16):
    return random_batch(np.random.default_rng(0), 3, length, vocab_size=MODEL.vocab_size)


@functools.partial(jax.jit, static_argnums=0)
def outputs(config, params, batch):
    encoded = functional.encode(config, params, batch, keep_layers=True)
    return encoded.layers_NxBxLxD, functional.mlm_logits(config, params, encoded.hidden_BxLxD)


def with_positions(table, offset=0):
    config = dataclasses.replace(
        MODEL, max_position_embeddings=len(table), position_offset=offset, hidden_size=2
    )
    return config, {"embeddings": {"position": {"embedding": np.array(table, np.float32)}}}


@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize("length", [17, 32, 1000])
def test_inputs_no_longer_than_before_give_the_same_bits_after_tiling(offset, length):
    config = dataclasses.replace(MODEL, position_offset=offset)
    grown, params = extend_positions(config, PARAMS, length, "tile")
    assert (grown.max_length, grown.max_position_embeddings) == (length, length + offset)
    assert positions(params).shape == (length + offset, MODEL.hidden_size)
    for size in (config.max_length, 5):
        for before, after in zip(
            outputs(config, PARAMS, batch(size)), outputs(grown, params, batch(size)), strict=True
        ):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("how,length", [("tile", 512), ("interpolate", 1000)])
def test_a_model_of_length_128_grows(how, length):
    config = dataclasses.replace(MODEL, max_position_embeddings=128)
    params = functional.init(config, jax.random.key(0))
    grown, new = extend_positions(config, params, length, how)
    assert np.isfinite(outputs(grown, new, batch(length))[0]).all()
    assert jax.tree.map(np.shape, new) == jax.tree.map(lambda s: s.shape, functional.shapes(grown))


@pytest.mark.parametrize("how,length,expected", [
    ("tile", 5, [[0, 8], [3, 2], [0, 8], [3, 2], [0, 8]]),
    ("interpolate", 4, [[0, 8], [1, 6], [2, 4], [3, 2]]),
    ("interpolate", 3, [[0, 8], [1.5, 5], [3, 2]]),
])  # fmt: skip
@pytest.mark.parametrize("below", [[], [[7, 7], [9, 9]]])
def test_new_positions_as_worked_by_hand(how, length, expected, below):
    config, params = with_positions([*below, [0, 8], [3, 2]], offset=len(below))
    grown, new = extend_positions(config, params, length, how)
    np.testing.assert_allclose(positions(new), [*below, *expected], rtol=1e-6)
    assert grown.max_length == length


@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 3))
def test_interpolated_positions_keep_the_ends_the_order_and_each_learned_row_that_is_met(
    before, more, offset
):
    table = np.random.default_rng(before).normal(size=(offset + before, 2)).astype(np.float32)
    table[offset:, 0] = np.arange(before)  # the index itself: what is mapped where can be read off
    config, params = with_positions(table, offset)
    _, new = extend_positions(config, params, before + more, "interpolate")
    rows = positions(new)
    np.testing.assert_array_equal(rows[:offset], table[:offset])
    np.testing.assert_array_equal(rows[offset], table[offset])
    np.testing.assert_array_equal(rows[-1], table[-1])
    np.testing.assert_allclose(
        rows[offset:, 0], np.linspace(0, before - 1, before + more), rtol=1e-5, atol=1e-5
    )
    assert (np.diff(rows[offset:, 0]) >= 0).all()
    met = rows[offset:, 0] == np.round(rows[offset:, 0])
    np.testing.assert_array_equal(
        rows[offset:][met], table[offset:][rows[offset:][met][:, 0].astype(int)]
    )


@pytest.mark.parametrize("length", [-1, 1, 15, 16])
def test_positions_are_never_cut(length):
    with pytest.raises(UserError, match=rf"length: found {length}, expected more than 16"):
        extend_positions(MODEL, PARAMS, length)


TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
LOCAL = family("modernbert", **TINY, local_attention=8)


@functools.cache
def random_params(config):
    """Parameters of which none is 0 or 1, so that a part that is left out shows."""
    shapes, key = functional.shapes(config), jax.random.key(0)
    return jax.tree.map(lambda s: 0.3 * jax.random.normal(key, s.shape), shapes)


@pytest.mark.parametrize("config", [
    LOCAL,
    pytest.param(family("deberta-v2", **TINY, relative_positions=16), marks=pytest.mark.slow),
    pytest.param(family("gpt_bert", **TINY, relative_positions=15), marks=pytest.mark.slow),
    pytest.param(dataclasses.replace(SMALL_MODEL, positions="sinusoidal"), marks=pytest.mark.slow),
], ids=["rotary", "relative", "relative with mix", "sinusoidal"])  # fmt: skip
def test_the_formula_of_positions_goes_on_and_short_inputs_give_the_same_bits(config):
    params = random_params(config)
    grown, same = extend_positions(config, params, 40)
    assert same is params
    assert (grown.max_length, grown.local_attention) == (40, config.local_attention)
    for before, after in zip(
        outputs(config, params, batch()), outputs(grown, params, batch()), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    assert np.isfinite(outputs(grown, params, batch(40))[0]).all()


def test_the_buckets_of_relative_positions_stay_where_they_were():
    config = family("deberta-v2", **TINY, relative_positions=16)
    grown, _ = extend_positions(config, {}, 40)
    assert grown.relative_max_distance == 16
    again, _ = extend_positions(grown, {}, 80)
    assert again.relative_max_distance == 16
    assert extend_positions(LOCAL, {}, 40)[0].relative_max_distance == 0


@pytest.mark.parametrize("name", ["deberta-v2", "gpt_bert"])
@pytest.mark.parametrize("middle", [15, 16, 40])
def test_a_model_with_near_distances_only_can_still_be_exported_when_it_has_grown(name, middle):
    rows = 4 * middle - (name == "gpt_bert")
    config = family(name, **TINY, relative_positions=rows)
    assert matching_family(config).name == name
    for length in (17, 40, 80):
        grown, _ = extend_positions(config, {}, length)
        assert grown.relative_max_distance == length
        assert matching_family(grown).name == name
        for size in (2, 16):
            np.testing.assert_array_equal(bucket_indices(grown, size), bucket_indices(config, size))


def test_a_far_distance_that_was_chosen_stays_where_it_says_more_than_the_length():
    config = family("deberta-v2", **TINY, relative_positions=64, relative_max_distance=512)
    assert extend_positions(config, {}, 40)[0].relative_max_distance == 512


def test_scaled_positions_give_every_second_token_the_angles_of_half_the_distance():
    config = dataclasses.replace(LOCAL, local_attention=0, max_position_embeddings=8)
    params = random_params(config)
    grown, _ = extend_positions(config, params, 16, "scale")
    assert (grown.rotary_scaling, grown.max_length) == (2, 16)
    rows = batch(8)
    stretched = {**rows, "position_ids": 2 * np.arange(8)[None, :]}
    before, after = outputs(config, params, rows)[0], outputs(grown, params, stretched)[0]
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)
    assert extend_positions(grown, params, 24, "scale")[0].rotary_scaling == 3


def test_another_base_in_global_layers_leaves_the_windows_as_they_are():
    config = dataclasses.replace(LOCAL, rotary_base=10_000.0, rotary_base_local=0.0)
    changed = change_rotary_bases(config, 160_000.0)
    assert (changed.rotary_base, changed.rotary_base_local) == (160_000, 10_000)
    both = change_rotary_bases(config, 160_000.0, 160_000.0)
    assert (both.rotary_base, both.rotary_base_local) == (160_000, 160_000)
    only_local = dataclasses.replace(config, global_attn_every_n_layers=0)
    params = random_params(config)
    without_global = dataclasses.replace(changed, global_attn_every_n_layers=0)
    for before, after in zip(
        outputs(only_local, params, batch()), outputs(without_global, params, batch()), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    first, second = (outputs(c, params, batch())[0] for c in (config, changed))
    assert not np.array_equal(first, second)
    everywhere = change_rotary_bases(dataclasses.replace(config, local_attention=0), 160_000.0)
    assert everywhere.rotary_base_local == 0


@pytest.mark.parametrize("config,how,message", [
    (MODEL, "stretch", "positions: found stretch, expected one of auto, tile, interpolate, keep, scale"),
    (MODEL, "scale", "positions: found scale, expected tile or interpolate, for model.positions learned"),
    (MODEL, "keep", "positions: found keep, expected tile or interpolate, for model.positions learned"),
    (LOCAL, "tile", "positions: found tile, expected keep or scale, for model.positions rotary"),
    (family("deberta-v2", **TINY), "scale", "positions: found scale, expected keep, for model.positions none"),
])  # fmt: skip
def test_a_method_that_such_positions_do_not_have_is_refused(config, how, message):
    with pytest.raises(UserError, match=message):
        extend_positions(config, PARAMS, 40, how)


@pytest.mark.parametrize("config,bases,message", [
    (MODEL, (1e5, 0.0), "rotary base: found a model with model.positions learned, expected rotary"),
    (LOCAL, (-1.0, 0.0), "rotary base: found -1.0, expected a number above 0"),
    (dataclasses.replace(LOCAL, local_attention=0), (0.0, 1e5), "rotary base of local layers: found 100000.0, expected none"),
    (dataclasses.replace(LOCAL, global_attn_every_n_layers=0), (1e5, 0.0), "rotary base: found 100000.0, expected none, for a model whose layers are all local"),
    (LOCAL, (float("inf"), 0.0), "model.rotary_base: found inf"),
])  # fmt: skip
def test_a_base_that_does_not_suit_the_model_is_refused(config, bases, message):
    with pytest.raises(UserError, match=message):
        change_rotary_bases(config, *bases)
