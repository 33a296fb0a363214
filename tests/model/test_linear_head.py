import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model import linear_head
from tests.factory import SMALL_MODEL


def test_a_new_head_is_a_cut_normal_and_zero_biases():
    config = dataclasses.replace(SMALL_MODEL, hidden_size=512, initializer_range=0.05)
    head = linear_head.init_linear(config, jax.random.key(0), 40)
    kernel = np.asarray(head["kernel"])
    assert (kernel.shape, kernel.dtype) == ((512, 40), np.float32)
    assert kernel.std() == pytest.approx(0.88 * 0.05, rel=0.05)  # of what the cut leaves
    assert abs(kernel.mean()) < 0.002
    assert np.abs(kernel).max() <= 2 * 0.05
    assert not np.asarray(head["bias"]).any()
    assert jax.tree.structure(head) == jax.tree.structure(
        linear_head.linear_axes(), is_leaf=lambda leaf: not isinstance(leaf, dict)
    )


@pytest.mark.parametrize("shape", [(3, 16), (2, 3, 16)])
@pytest.mark.parametrize("dtype,bound", [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_scores_are_the_product_and_the_bias_in_float32(shape, dtype, bound):
    config = dataclasses.replace(SMALL_MODEL, dtype=dtype)
    rng = np.random.default_rng(0)
    head = {
        "kernel": rng.standard_normal((16, 5), np.float32),
        "bias": rng.standard_normal(5, np.float32),
    }
    x = rng.standard_normal(shape, np.float32)
    actual = linear_head.linear(config, head, jnp.asarray(x))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(
        actual, x @ head["kernel"] + head["bias"], atol=bound * 8, rtol=bound
    )
