import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.model.sparse.product import sparse_stack


def kernels_of(count, inputs, outputs, zeros, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(count, inputs, outputs)).astype(np.float32)
    return np.where(rng.random(weights.shape) < zeros, np.float32(0), weights)


@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_the_form_has_each_weight_once_in_the_order_of_its_output(
    count, inputs, outputs, zeros, seed
):
    kernels = kernels_of(count, inputs, outputs, zeros, seed)
    form = sparse_stack(kernels)
    for layer, kernel in enumerate(kernels):
        again = np.zeros_like(kernel)
        for output in range(outputs):
            begin, end = form.starts[layer, output : output + 2]
            again[form.inputs[layer, begin:end], output] = form.weights[layer, begin:end]
            assert (np.diff(form.inputs[layer, begin:end]) > 0).all()
        assert np.array_equal(again, kernel)
        assert not form.weights[layer, form.starts[layer, -1] :].any()


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95, 1.0])
def test_the_product_is_that_of_the_dense_kernel_for_each_layer_of_a_stack(zeros, largest):
    kernels = kernels_of(3, 48, 80, zeros)
    kernels[1, :, 10:] = 0  # fewer weights than the others
    x = np.random.default_rng(1).normal(size=(2, 7, 48)).astype(np.float32)
    form = sparse_stack(kernels)
    products = jax.jit(lambda form: jax.lax.scan(lambda _, f: (None, f.product(x, 1)), None, form))
    _, found = products(jax.tree.map(jnp.asarray, form))
    expected = np.einsum("bti,nio->nbto", x.astype(np.float64), kernels)
    assert found.shape == (3, 2, 7, 80)
    largest("sparse products", np.abs(found - expected).max(), 1e-5)


def test_a_product_in_bfloat16_has_sums_in_float32():
    form = sparse_stack(np.ones((1, 512, 1), np.float32)).of_layer(0)
    x = jnp.ones((4, 512), jnp.bfloat16)
    found = form.product(x, 1)
    assert found.dtype == jnp.bfloat16
    # Summed in bfloat16, ones do not get above 256.
    assert np.array_equal(found, np.full((4, 1), 512))


def test_it_is_no_table_of_vectors():
    form = sparse_stack(np.ones((1, 2, 3), np.float32))
    with pytest.raises(TypeError, match="no table"):
        form.rows(jnp.array([0]))
    with pytest.raises(TypeError, match="no table"):
        form.row_products(jnp.ones((1, 2)))
