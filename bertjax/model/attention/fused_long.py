"""Attention with the TPU kernel for long rows and windows, which also rotates queries and keys."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.kernels import tpu_long_attention as kernel
from bertjax.model.kernels.tpu_attention import LANES
from bertjax.model.layers import ATTENDED
from bertjax.model.layout import Layout, Names

ROWS: Names = ("batch", None, "heads")  # the kernel needs whole rows, so the length is not sharded


def fused_long(
    config: ModelConfig,
    qkv_BxLx3D: Array,
    segments: tuple[Array, Array],
    *,
    window: int,
    angles: Array | None,
    layout: Layout,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """Return `attention.attention` without dropout, [B, L, H * K], twice; a `window` of 0: global.

    Queries, keys and values are one array, `kernels.tpu_long_attention.grouped`, with heads side by
    side. If heads had an axis of their own, the compiler would copy all of them and their gradients
    into another layout. With `angles`, which are `packed_rotation`'s, queries and keys come without
    rotation. The second result is for `layers.linear`. The result for a query that sees no key
    is 0. `interpret` runs the kernel in Pallas's interpreter.
    """
    pairs = "" if angles is None else config.rotary_pairs
    static = kernel.Static(config.head_width, window, pairs, ATTENDED, interpret)

    def local(qkv: Array, queries: Array, keys: Array, angles: Array) -> Any:
        return kernel.tpu_long_attention(static, qkv, (queries, keys), angles)

    per_row: Names = ("batch", None)
    if angles is None:
        angles = jnp.zeros((1, 8, LANES), jnp.float32)
    # Positions are those of each row, or the same for all.
    of_angles: Names = ("batch" if angles.shape[0] > 1 else None, None, None)
    run = layout.per_device(local, [ROWS, per_row, per_row, of_angles], [ROWS, ROWS])
    output, kept = run(qkv_BxLx3D, *segments, angles)
    return output, kept
