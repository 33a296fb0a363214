"""How rows are turned, against gathers and JAX's own derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_relative_rows import rows_of, skewed, unskewed
from tests.attention_kernels import rolled


def test_rows_are_turned_as_the_tests_of_the_kernel_take_it():
    x = jax.random.normal(jax.random.key(0), (16, 256))

    def body(x, out):
        out[...] = pltpu.roll(x[...], 128, 1, stride=1, stride_axis=0)

    found = pl.pallas_call(body, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)
    np.testing.assert_array_equal(found, rolled(x, 128, 1, stride=1, stride_axis=0))


@pytest.mark.usefixtures("gathered_roll")
def test_each_distance_is_moved_to_its_key_and_its_gradient_back():
    x, gradient = (jax.random.normal(jax.random.key(n), (128, 384)) for n in range(2))
    gradient = gradient[:, :256]
    found, back = jax.vjp(skewed, x)
    row, key = np.indices((128, 256))
    np.testing.assert_array_equal(found, np.asarray(x)[row, key - row + 128])
    (expected,) = back(gradient)
    moved = unskewed(gradient[::-1])[::-1]
    np.testing.assert_array_equal(moved[:, :-1], expected[:, 1:])
    assert not np.any(moved[:, -1])


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 0), (jnp.bfloat16, 2**-16)])
def test_columns_in_the_opposite_order_become_rows_with_16_bits_at_least(dtype, bound):
    x_WxT = jax.random.normal(jax.random.key(0), (128, 128))
    found = jax.jit(rows_of, static_argnums=1)([x_WxT[:64], x_WxT[64:]], dtype)
    expected = x_WxT[:, ::-1].T
    assert (jnp.abs(found - expected) <= bound * jnp.abs(expected)).all()
