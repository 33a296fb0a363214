import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.model.attention.rotary import rotate, rotation
from tests.factory import SMALL_MODEL

CONFIG = dataclasses.replace(SMALL_MODEL, positions="rotary")
K = CONFIG.head_width


def drawn(seed, length=6):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(1, length, 2, K)), jnp.float32)


def rotated(config, x, positions, base=100.0):
    return rotate(config, x, rotation(config, jnp.asarray(positions)[None, :], base))


@given(shift=st.integers(0, 1000), pairs=st.sampled_from(["half", "interleaved"]))
def test_products_of_rotated_vectors_depend_on_the_distance_alone(shift, pairs):
    config = dataclasses.replace(CONFIG, rotary_pairs=pairs)
    q, k = drawn(0), drawn(1)
    positions = np.arange(6)
    here = jnp.einsum(
        "blhk,bmhk->bhlm", rotated(config, q, positions), rotated(config, k, positions)
    )
    there = jnp.einsum(
        "blhk,bmhk->bhlm",
        rotated(config, q, positions + shift),
        rotated(config, k, positions + shift),
    )
    np.testing.assert_allclose(here, there, atol=2e-3)


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_each_pair_turns_by_its_own_angle_for_each_position(pairs):
    config = dataclasses.replace(CONFIG, rotary_pairs=pairs)
    x, base = drawn(2), 100.0
    result = np.asarray(rotated(config, x, np.arange(6), base))
    for i in range(K // 2):
        first, second = (i, i + K // 2) if pairs == "half" else (2 * i, 2 * i + 1)
        for position in range(6):
            turn = np.exp(1j * position * base ** (-2 * i / K))
            before = np.asarray(x[0, position, :, first] + 1j * x[0, position, :, second])
            after = result[0, position, :, first] + 1j * result[0, position, :, second]
            np.testing.assert_allclose(after, before * turn, atol=1e-6)


def test_scaled_positions_are_rotated_like_smaller_ones():
    scaled = dataclasses.replace(CONFIG, rotary_scaling=4.0)
    x = drawn(3)
    np.testing.assert_allclose(
        rotated(scaled, x, 4 * np.arange(6)), rotated(CONFIG, x, np.arange(6)), atol=1e-6
    )
