"""Each matrix of a model is found, and may be one that computes its own products."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bertjax.config import FAMILIES
from bertjax.model import functional
from bertjax.model.matrices import TABLES, Place, kernel_place, matrix_places, with_matrices
from bertjax.model.matrix import Matrix
from tests.interop.exported_programs import COMPOSED, MODELS, small_family


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=[])
@dataclass(frozen=True)
class Plain(Matrix):
    """A matrix of floats. Its product has twice the size, so that a plain one is noticed."""

    values: jax.Array

    def product(self, x, inputs):
        flat = self.values.reshape(math.prod(self.values.shape[:inputs]), -1)
        return 2 * jnp.dot(x, flat)

    def rows(self, ids):
        return 2 * self.values[ids]

    def row_products(self, x):
        return 2 * jnp.dot(x, self.values.T)


def outputs(config, params):
    """The logits of all heads, and the hidden states."""
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 9)).astype(np.int32)
    hidden = functional.encode(config, params, {"input_ids": ids}).hidden_BxLxD
    found = {"hidden": hidden}
    if "mlm" in config.heads:
        found["mlm"] = functional.mlm_logits(config, params, hidden)
    if "pooler" in config.heads:
        found["pooled"] = functional.pool(config, params, hidden)
    if "nsp" in config.heads:
        found["nsp"] = functional.nsp_logits(config, params, found["pooled"])
    return found


EACH = {**MODELS, **COMPOSED}
QUICK = ("bert", "rotary")


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted({*EACH} - {*QUICK}))],
)
def test_a_matrix_stands_for_the_array_wherever_the_model_multiplies(name):
    compare(EACH[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_matrix_stands_for_the_array_in_each_family(name):
    compare(small_family(name))


def compare(config):
    params = jax.jit(lambda: functional.init(config, jax.random.key(1)))()
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), params)
    places = matrix_places(config)
    flat = flatten_dict(params, sep="/")
    doubled = with_matrices(params, {path: 2 * flat[path] for path in places})
    matrices = with_matrices(params, {path: Plain(flat[path]) for path in places})
    run = jax.jit(partial(outputs, config))
    expected, found = run(doubled), run(matrices)
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, rtol=0, atol=2e-4, err_msg=output)
    # Whatever else has two axes or more is no matrix of a product.
    for path, leaf in flat.items():
        rank = leaf.ndim - path.startswith("encoder/layers/")
        is_one = path.endswith("/kernel") or path in TABLES
        assert is_one == (path in places), path
        if is_one:
            assert rank >= 2
    assert {path for path, place in places.items() if place.is_stacked} == {
        path for path in places if path.startswith("encoder/layers/")
    }


def test_the_place_of_a_kernel_says_which_axes_a_product_sums_over():
    places = matrix_places(MODELS["bert"])
    assert places["encoder/layers/attention/query/kernel"] == Place((1,), True)
    assert places["encoder/layers/attention/output/kernel"] == Place((1, 2), True)
    assert places["pooler/kernel"] == kernel_place() == Place((0,), False)
    assert places["embeddings/word/embedding"] == Place((1,), False)
