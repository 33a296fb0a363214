"""Matrices that compute their own products, in the place of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bertjax.model.matrix import FakeQuantized, rounded

VALUES = arrays.arrays(
    np.float32, (5, 3), elements=st.floats(-100, 100, width=32, allow_subnormal=False)
)


@pytest.mark.parametrize("bits", [4, 8])
@given(values=VALUES)
def test_rounding_moves_nothing_by_more_than_half_a_step(bits, values):
    found = np.asarray(rounded(jnp.asarray(values), (0,), bits))
    step = np.abs(values).max(axis=0) / (2 ** (bits - 1) - 0.5)
    assert np.all(np.abs(found - values) <= 0.5001 * step + 1e-18)
    # No column has more values than the integers have.
    for column, size in zip(found.T, step, strict=True):
        if size > 1e-18:
            integers = column / size
            assert np.allclose(integers, np.rint(integers), atol=1e-3)
            assert np.all(integers > -(2 ** (bits - 1)) - 0.01)
            assert np.all(integers < 2 ** (bits - 1) - 0.99)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_that_of_qwix(bits):
    qwix = pytest.importorskip("qwix")
    values = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    kind = {4: jnp.int4, 8: jnp.int8}[bits]
    exact = qwix.dequantize(qwix.quantize(jnp.asarray(values), kind, channelwise_axes=[1]))
    np.testing.assert_array_equal(rounded(jnp.asarray(values), (0,), bits), exact)


def test_the_gradient_passes_rounding_as_if_it_were_not_there():
    x, kernel = jnp.asarray([[0.3, -1.0]]), jnp.asarray([[1.0, 2.0, 0.1], [0.2, -0.7, 0.9]])

    def product(x, kernel):
        return jnp.sum(FakeQuantized(kernel, bits=4).product(x, 1))

    d_x, d_kernel = jax.grad(product, argnums=(0, 1))(x, kernel)
    # Each factor's gradient is the other factor, as it was rounded.
    np.testing.assert_allclose(d_x, rounded(kernel, (0,), 4).sum(axis=1)[None], rtol=1e-6)
    expected = np.repeat(np.asarray(rounded(x, (-1,), 8)).T, 3, axis=1)
    np.testing.assert_allclose(d_kernel, expected, rtol=1e-6)


def test_products_and_rows_of_a_table_have_a_scale_for_each_vector():
    table = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    table[2] *= 1000
    matrix = FakeQuantized(jnp.asarray(table), bits=8, inputs_too=False)
    rows = np.asarray(matrix.rows(jnp.arange(6)))
    assert np.all(np.abs(rows - table) <= np.abs(table).max(axis=1, keepdims=True) / 250)
    x = jnp.ones((2, 3, 4))
    np.testing.assert_allclose(matrix.row_products(x)[1, 1], rows.sum(axis=1), rtol=1e-5)
