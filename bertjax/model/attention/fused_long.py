"""Attention with the TPU kernel for long rows and windows, which also rotates queries and keys."""

import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention.rotary import Rotation
from bertjax.model.kernels import tpu_long_attention as kernel
from bertjax.model.kernels.tpu_attention import LANES
from bertjax.model.layers import ATTENDED
from bertjax.model.layout import Layout, Names

ROWS: Names = ("batch", None, "heads")  # the kernel needs whole rows, so the length is not sharded


def fused_long(
    config: ModelConfig,
    q_BxLxD: Array,
    k_BxLxD: Array,
    v_BxLxD: Array,
    segments: tuple[Array, Array],
    *,
    window: int,
    rotation: Rotation | None,
    layout: Layout,
    interpret: bool = False,
) -> Array:
    """Return `attention.attention` without dropout, [B, L, H * K]; a `window` of 0: global.

    The heads of queries, keys and values lie side by side. If they had an axis of their own, the
    compiler would copy all of them and their gradients into another layout. With a `rotation`,
    queries and keys come without it. The result for a query that sees no key is 0. `interpret` runs
    the kernel in Pallas's interpreter.
    """
    pairs = "" if rotation is None else config.rotary_pairs
    static = kernel.Static(config.head_width, window, pairs, ATTENDED, interpret)

    def local(q: Array, k: Array, v: Array, queries: Array, keys: Array, angles: Array) -> Array:
        return kernel.tpu_long_attention(static, q, k, v, (queries, keys), angles)

    per_row: Names = ("batch", None)
    angles = jnp.zeros((1, 8, LANES), jnp.float32)
    if rotation is not None:
        angles = kernel.packed_rotation(rotation.cosines, rotation.sines, pairs)
    # Positions are those of each row, or the same for all.
    of_angles: Names = ("batch" if angles.shape[0] > 1 else None, None, None)
    run = layout.per_device(local, [ROWS, ROWS, ROWS, per_row, per_row, of_angles], ROWS)
    return run(q_BxLxD, k_BxLxD, v_BxLxD, *segments, angles)
