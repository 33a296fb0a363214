"""Disentangled attention with the TPU kernel for it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.attention.fused_long import ROWS
from bertjax.model.attention.relative_attention import RelativeVectors, bucket_indices
from bertjax.model.kernels import tpu_relative_attention as kernel
from bertjax.model.layers import ATTENDED
from bertjax.model.layout import Layout, Names


def fused_relative(
    config: ModelConfig,
    qkv_BxLx3D: Array,
    segments: tuple[Array, Array],
    relative: RelativeVectors,
    *,
    key: Array | None,
    layout: Layout,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """Return `attention.attention` with relative positions, [B, L, H * K], twice.

    Queries, keys and values are one array, `kernels.tpu_long_attention.grouped`. The second result
    is for `layers.linear`. The result for a query that sees no key is 0. `interpret` runs the
    kernel in Pallas's interpreter.
    """
    length, total = qkv_BxLx3D.shape[1], config.num_attention_heads
    rate = 0.0 if key is None else config.attention_probs_dropout_prob
    static = kernel.Static(config.head_width, rate, ATTENDED, interpret)
    # The rows of the distances -L..L.
    rows = bucket_indices(config, length + 1)

    def local(
        qkv: Array,
        queries: Array,
        keys: Array,
        of_queries_RxM: Array,
        of_keys_RxM: Array,
        words: Array,
        numbers: Array,
        heads: Array,
    ) -> Any:
        """Attention for one device's rows and heads, as in `attention.fused`."""
        # Taken here, so that devices add up the gradients of buckets: distances are more.
        tables = kernel.Tables(
            _taken(of_keys_RxM, rows[-2::-1]).T,
            _taken(of_queries_RxM * static.scale, rows[1:]).T,
        )
        seed = random_bits.score_seed(words, heads, total, numbers)
        return kernel.tpu_relative_attention(static, qkv, tables, (queries, keys), seed)

    per_row, vectors = ("batch", None), (None, "heads")
    inputs: list[Names] = [ROWS, per_row, per_row, vectors, vectors, (None,), ("batch",)]
    run = layout.per_device(local, [*inputs, ("heads",)], [ROWS, ROWS])
    flat = (x.reshape(x.shape[0], -1) for x in (relative.queries_RxHxK, relative.keys_RxHxK))
    output, kept = run(
        qkv_BxLx3D,
        *segments,
        *flat,
        random_bits.seed_words(key),
        layout.row_numbers(qkv_BxLx3D.shape[0]),
        jnp.arange(total, dtype=jnp.int32),
    )
    return output, kept


def _taken(vectors_RxM: Array, rows: np.ndarray) -> Array:
    """Return these rows; the gradients of equal ones are added up in float32."""
    return jnp.take(vectors_RxM.astype(jnp.float32), rows, axis=0).astype(vectors_RxM.dtype)
