import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.model.attention.rotary import frequencies, rotate, rotation
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


@pytest.mark.parametrize("base", [1e3, 1e4, 160_000.0, 250_000.0, 2_560_000.0])
@pytest.mark.parametrize("width", [16, 48, 64, 128])
def test_the_angles_are_those_that_trained_weights_know(width, base, largest):
    """Where the last bits of the frequencies are others, angles at 8,192 differ by 5e-4."""
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(CONFIG, hidden_size=width, num_attention_heads=1)
    # The formula of all models in transformers, in float32 at each step.
    expected = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
    found = frequencies(config, base)
    steps_apart = np.abs(found - expected.numpy()) / np.spacing(found)
    # A power has another last bit on some processors.
    assert steps_apart.max() <= 1
    assert (steps_apart > 0).sum() <= width // 16
    positions = np.array([1, 512, 4095, 8191])
    by = rotation(config, jnp.asarray(positions)[None], base)
    angles = positions.astype(np.float32)[:, None] * found
    for name, function, ours in (("cosine", np.cos, by.cosines), ("sine", np.sin, by.sines)):
        exact = function(angles.astype(np.float64))
        largest(f"rotary positions up to 8,191: {name}", np.abs(ours[0] - exact).max(), 2e-7)
