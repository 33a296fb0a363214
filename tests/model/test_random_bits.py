from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.model import random_bits
from bertjax.model.layout import ANYWHERE, PartOfBatch
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout

SHAPE, NAMES = (8, 32, 64), ("batch", "length", None)


def kept(seed, shape=SHAPE, row_axes=1, rate=0.5):
    row_numbers = jnp.arange(shape[0])
    return np.asarray(
        random_bits.keep_mask(jax.random.key(seed), row_numbers, shape, row_axes, rate)
    )


def assert_independent(a, b):
    """Two fair masks agree on half of their places."""
    error = 5 * 0.5 / np.sqrt(a.size)
    assert abs((a == b).mean() - 0.5) < error


@given(seed=st.integers(0, 2**31), distance=st.integers(1, 31))
def test_masks_do_not_repeat_from_place_to_place_row_to_row_or_key_to_key(seed, distance):
    mask = kept(seed)
    assert_independent(mask[:, :, :-1], mask[:, :, 1:])
    assert_independent(mask[:, :-distance], mask[:, distance:])
    assert_independent(mask[:-1], mask[1:])
    assert_independent(mask, kept(seed + 1))


def test_every_bit_of_the_hash_is_fair_and_two_bits_are_independent():
    low, high = (jnp.int32(x) for x in (123, -456))
    bits = np.asarray(random_bits.mix(jnp.arange(1 << 16, dtype=jnp.int32), low, high)).view(
        np.uint32
    )
    flags = (bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(flags.mean(0) - 0.5).max() < 0.01
    correlation = np.corrcoef(flags.T) - np.eye(32)
    assert np.abs(correlation).max() < 0.025


def test_heads_of_a_row_have_masks_of_their_own():
    mask = kept(0, (2, 4, 64, 64), row_axes=2)
    for head in range(1, 4):
        assert_independent(mask[:, 0], mask[:, head])
    assert_independent(mask[0], mask[1])


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.999])
def test_the_rate_is_what_was_asked_for(rate):
    dropped = 1 - kept(3, (64, 128, 128), rate=rate).mean()
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / (64 * 128 * 128))


@pytest.mark.parametrize("draw", ["keep", "threefry"])
def test_a_mesh_does_not_change_the_masks(draw):
    layout = MeshLayout(make_mesh(MeshConfig(data=2, tensor=2, sequence=2)))

    def mask(key):
        if draw == "keep":
            row_numbers = layout.row_numbers(SHAPE[0])
            return layout(random_bits.keep_mask(key, row_numbers, SHAPE, 1, 0.5), *NAMES)
        return layout(random_bits.threefry(key, SHAPE, layout, NAMES), *NAMES)

    key = jax.random.key(4)
    alone = kept(4) if draw == "keep" else jax.random.bits(key, SHAPE, jnp.uint16)
    assert np.array_equal(jax.jit(mask)(key), alone)


def test_rbg_gives_each_device_bits_of_its_own_and_replicas_the_same():
    layout = MeshLayout(make_mesh(MeshConfig(data=2, tensor=2, sequence=2)))
    bits = jax.jit(lambda key: random_bits.rbg(key, SHAPE, layout, NAMES))(jax.random.key(0))
    whole = np.asarray(bits)
    assert_independent(whole[:4] >> 15, whole[4:] >> 15)
    assert_independent(whole[:, :16] >> 15, whole[:, 16:] >> 15)
    for shard in bits.addressable_shards:  # the tensor axis holds copies
        assert np.array_equal(shard.data, whole[shard.index])


@partial(jax.jit, static_argnums=1)
def bits_here_and_of_jax(key, shape):
    words = random_bits.threefry_words(key, shape, ANYWHERE)
    return (
        (words, jax.random.bits(key, shape)),
        (random_bits.uniform(words), jax.random.uniform(key, shape)),
        (
            random_bits.threefry(key, shape, ANYWHERE, ()),
            jax.random.bits(key, shape, jnp.uint16),
        ),
    )


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_threefry_gives_the_bits_of_jax(shape, seed):
    for here, of_jax in bits_here_and_of_jax(jax.random.key(seed), tuple(shape)):
        assert here.dtype == of_jax.dtype
        assert np.array_equal(here, of_jax)


@given(x=st.integers(0, 2**32 - 1), factor=st.integers(0, 2**32 - 1))
def test_a_product_of_two_words_is_exact(x, factor):
    high, low = random_bits._product(jnp.full(1, x, jnp.uint32), factor)
    assert (int(high[0]) << 32) + int(low[0]) == x * factor


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("draw", ["keep", "threefry"])
def test_a_part_of_a_batch_has_the_bits_of_its_rows(draw, sequences):
    def bits(layout, rows):
        shape, key = (rows * sequences, 4, 6), jax.random.key(1)
        if draw == "keep":
            row_numbers = layout.row_numbers(shape[0])
            return np.asarray(random_bits.keep_mask(key, row_numbers, shape, 2, 0.5))
        return np.asarray(random_bits.threefry(key, shape, layout, ()))

    whole = bits(ANYWHERE, 8).reshape(8, sequences, 4, 6)
    for first in range(4):
        part = PartOfBatch(ANYWHERE, jnp.int32(first), step=4, rows=2)
        assert np.array_equal(bits(part, 2).reshape(2, sequences, 4, 6), whole[first::4])
