"""Integers, their scales and their products, against plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bertjax.compression.quantize.integers import (
    Range,
    names_of,
    packed,
    range_steps,
    read_matrix,
    stored_integers,
    unpacked,
)
from bertjax.model.matrices import kernel_place

# Few shapes, because each is compiled; of an even and of an odd number of integers a layer.
SHAPES = st.sampled_from([(1, 1, 1), (2, 3, 5), (3, 2, 4)])
NIBBLES = arrays.arrays(np.int8, SHAPES, elements=st.integers(-8, 7))


@given(NIBBLES)
def test_integers_of_four_bits_come_back_from_half_the_bytes(values):
    layers = len(values)
    pairs = packed(values, layers)
    assert pairs.dtype == np.uint8
    assert pairs.size == layers * -(-values[0].size // 2)
    back = unpacked(jnp.asarray(pairs), values.shape)
    assert back.dtype == jnp.int8
    np.testing.assert_array_equal(back, values)


@given(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32))
def test_a_range_has_zero_as_one_of_its_steps(first, second):
    least, largest = sorted([first, second])
    scale, zero = range_steps(Range(np.float32(least), np.float32(largest)))
    low, high = min(least, 0), max(largest, 0)
    assert -128 <= zero <= 127
    # Both ends are at most half a step outside of what int8 can hold.
    assert (-128 - float(zero)) * scale <= low + 0.51 * scale
    assert (127 - float(zero)) * scale >= high - 0.51 * scale


def matrix_of(
    kernel, *, bits=8, granularity="channel", activations="none", inputs=None, place=None
):
    place = place or kernel_place()
    stored = stored_integers("k", kernel, place, bits=bits, granularity=granularity, inputs=inputs)
    assert set(stored) <= set(names_of("k"))
    arrays = {name: jnp.asarray(value) for name, value in stored.items()}
    return stored, read_matrix("k", kernel.shape, arrays, activations)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_moves_by_half_a_step_at_most_and_the_largest_stays(bits, granularity):
    pytest.importorskip("qwix")
    kernel = np.random.default_rng(0).standard_normal((3, 16, 2, 5)).astype(np.float32)
    kernel[0, 3, 1, 4] = 9.0
    place = kernel_place(1, is_stacked=True)
    stored, matrix = matrix_of(kernel, bits=bits, granularity=granularity, place=place)
    axes = (1,) if granularity == "channel" else (1, 2, 3)
    step = np.abs(kernel).max(axis=axes, keepdims=True) / (2 ** (bits - 1) - 0.5)
    np.testing.assert_allclose(stored["k_scale"], step, rtol=1e-6)
    floats = np.asarray(matrix.values, np.float32) * step
    assert np.all(np.abs(floats - kernel) <= 0.5001 * step)
    assert stored["k"].dtype == (np.uint8 if bits == 4 else np.int8)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("activations", ["none", "dynamic", "static"])
def test_products_are_those_of_the_integers_and_their_scales(activations, granularity):
    pytest.importorskip("qwix")
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((16, 2, 5)).astype(np.float32)
    x = rng.standard_normal((3, 4, 16)).astype(np.float32) + 0.5
    inputs = Range(np.float32(-2), np.float32(3))
    options = {"granularity": granularity, "activations": activations}
    stored, matrix = matrix_of(kernel, inputs=inputs, **options)
    floats = (stored["k"].astype(np.float64) * stored["k_scale"]).reshape(16, 10)
    if activations == "dynamic":
        step = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127.5)
        x_read = np.clip(np.rint(x / step), -128, 127) * step
    elif activations == "static":
        scale, zero = range_steps(inputs)
        integers = np.clip(np.rint(x / scale) + zero, -128, 127)
        x_read = (integers - zero) * scale
        assert np.abs(x_read).max() <= 3.02
    else:
        x_read = x
    found = np.asarray(jax.jit(lambda x: matrix.product(x, 1))(x))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x_read @ floats, rtol=0, atol=2e-4)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_a_table_is_looked_up_and_multiplied(granularity):
    pytest.importorskip("qwix")
    table = np.random.default_rng(2).standard_normal((7, 6)).astype(np.float32)
    place = kernel_place()._replace(summed=(1,))
    stored, matrix = matrix_of(table, granularity=granularity, place=place)
    floats = stored["k"].astype(np.float32) * stored["k_scale"]
    ids = np.array([[0, 6, 3], [2, 2, 1]])
    np.testing.assert_array_equal(matrix.rows(jnp.asarray(ids)), floats[ids])
    x = np.random.default_rng(3).standard_normal((2, 6)).astype(np.float32)
    np.testing.assert_allclose(matrix.row_products(jnp.asarray(x)), x @ floats.T, atol=1e-5)


def test_bfloat16_has_products_of_float32_scales():
    pytest.importorskip("qwix")
    kernel = np.random.default_rng(4).standard_normal((16, 8)).astype(np.float32)
    x = jnp.asarray(np.random.default_rng(5).standard_normal((3, 16)), jnp.bfloat16)
    for activations in ("none", "dynamic"):
        _, matrix = matrix_of(kernel, activations=activations)
        found = matrix.product(x, 1)
        exact = np.asarray(x, np.float32) @ kernel
        assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.02
