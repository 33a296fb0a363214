"""Kernels in gradient accumulation: a part's dropout is that of its rows in the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import ModelConfig
from bertjax.model.attention.attention import Segments, fused
from bertjax.model.layout import ANYWHERE, PartOfBatch
from bertjax.model.residual_norm import residual_norm_kernel
from tests.attention_kernels import model

ROWS, PARTS = 4, 2


def assert_parts_equal_rows(run, arrays):
    """`run(layout, arrays)` of each part gives the rows that it gives for the whole batch."""
    whole = np.asarray(run(ANYWHERE, arrays))
    for first in range(PARTS):
        layout = PartOfBatch(ANYWHERE, jnp.int32(first), PARTS, ROWS // PARTS)
        part = run(layout, [array[first::PARTS] for array in arrays])
        np.testing.assert_allclose(part, whole[first::PARTS], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_attention(platform):
    arrays = jax.random.normal(jax.random.key(0), (3, ROWS, 128, 2, 64))

    def run(layout, arrays):
        q, k, v = arrays
        ones = jnp.ones((len(q), 128), jnp.int32)
        return fused(
            model(0.5),
            q,
            k,
            v,
            Segments(ones, ones),
            key=jax.random.key(1),
            layout=layout,
            platform=platform,
            interpret=True,
        )

    assert_parts_equal_rows(run, list(arrays))


def test_norm():
    config = ModelConfig(
        kernels="pallas", dropout_bits="hash", hidden_dropout_prob=0.5, hidden_size=128,
        num_attention_heads=2, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    arrays = jax.random.normal(jax.random.key(0), (2, ROWS, 128, 128))
    scale, bias = jnp.ones(128), jnp.zeros(128)

    def run(layout, arrays):
        key = jax.random.key(1)
        return residual_norm_kernel(config, layout, *arrays, scale, bias, key, interpret=True)

    assert_parts_equal_rows(run, list(arrays))
