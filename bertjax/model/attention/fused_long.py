"""Attention with the TPU kernel for long rows and windows, which also rotates queries and keys."""

import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.attention.rotary import Rotation
from bertjax.model.kernels import tpu_long_attention as kernel
from bertjax.model.kernels.tpu_attention import LANES
from bertjax.model.layers import ATTENDED
from bertjax.model.layout import Layout, Names


def fused_long(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: tuple[Array, Array],
    *,
    window: int,
    rotation: Rotation | None,
    layout: Layout,
    interpret: bool = False,
) -> Array:
    """Return `attention.attention` without dropout, [B, L, H, K]; a `window` of 0: global.

    With a `rotation`, queries and keys come without it. The result for a query that sees no key is
    0. `interpret` runs the kernel in Pallas's interpreter.
    """
    pairs = "" if rotation is None else config.rotary_pairs
    static = kernel.Static(q.shape[3], window, pairs, ATTENDED, interpret)

    def local(q: Array, k: Array, v: Array, queries: Array, keys: Array, angles: Array) -> Array:
        # Several heads side by side are the 128 lanes of a block.
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        mixed = kernel.tpu_long_attention(static, *flat, (queries, keys), angles)
        return mixed.reshape(q.shape)

    # The kernel needs whole rows, so the length is not sharded.
    rows: Names = ("batch", None, "heads", None)
    per_row: Names = ("batch", None)
    angles = jnp.zeros((1, 8, LANES), jnp.float32)
    if rotation is not None:
        angles = kernel.packed_rotation(rotation.cosines, rotation.sines, pairs)
    # Positions are those of each row, or the same for all.
    of_angles: Names = ("batch" if angles.shape[0] > 1 else None, None, None)
    run = layout.per_device(local, [rows, rows, rows, per_row, per_row, of_angles], rows)
    return run(q, k, v, *segments, angles)
