"""Attention in rows of any length in one TPU kernel, global or in a window, forward and backward.

Keys and values of a row stay in the memory of a core; queries come in blocks. A tile of scores has
keys along its first axis and queries along the second. So the largest score and the sum of a query
are taken over the first axis, which costs least. And the products that give H x K numbers a token
are computed transposed, `[K, tokens]`: a matrix unit is 128 columns wide, and the other way round
half of them would be idle in heads of width 64. By the compiler's own schedule this saves a third
of the time of the products.

As in `tpu_attention`, 128 lanes hold 128 / K heads side by side. Queries, keys and values are one
array, in which those of the same 128 lanes stand together (`grouped`): so one matrix product makes
them, and their gradient is that product's, without a copy. Rotary
positions are applied inside: between the projections and the kernel, they would take as long as
the layer's matrix products. There is no dropout.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import FLOPS_PER_CYCLE, LANES
from bertjax.model.kernels.tpu_long_bodies import backward_body, forward_body
from bertjax.model.kernels.tpu_long_rows import BLOCK, MAX_TILE, Static, Tiling, tiling

# A v5e's cycles for 8 x 128 scores besides those of the products, and for 128 tokens, by the
# compiler's schedule (docs/architecture.md): they are rotated, transposed and so on.
# Windows have small tiles, in which operations wait for each other.
SCORE_CYCLES = {"forward": 1.5, "backward": 0}
TOKEN_CYCLES = {"forward": 250, "backward": 425}
WINDOW_TOKEN_CYCLES = {"forward": 425, "backward": 660}


def fits(
    length: int, window: int, num_heads: int, head_width: int, itemsize: int, core_memory: int
) -> bool:
    """Return True if the kernel supports rows of this length and `num_heads` heads per device.

    `itemsize` is that of the dtype, `core_memory` the bytes of a core's memory.
    """
    if length % LANES or LANES % head_width or num_heads * head_width % LANES:
        return False
    return memory_bytes(length, window, itemsize) <= core_memory


def memory_bytes(length: int, window: int, itemsize: int) -> int:
    """Return the bytes of a core's memory that the backward pass needs for rows of this length."""
    length += 2 * tiling(length, window).padding
    # Queries, keys, values and their gradients twice, because blocks are copied while others are
    # computed; and keys, values and transposed keys.
    arrays = 2 * 6 + 3
    # Cosines and sines twice, two gradients as they are summed, and the segments: float32 or int32.
    wide = 2 * 2 + 2 + 1
    row = LANES * length * (arrays * itemsize + wide * 4)
    # Two blocks of outputs and gradients twice, and tiles of scores.
    return row + 2 * 2 * LANES * BLOCK * itemsize + 4 * MAX_TILE**2 * 4


def packed_rotation(cosines: Array, sines: Array, pairs: str) -> Array:
    """Return the angles of K / 2 pairs, [B, L, K / 2], as the kernel takes them, [B, 2 * 128, L].

    The first 128 rows are the cosines of the elements of a head, or of several heads side by side,
    the others their sines, which are negative for the first element of a pair.
    """
    parts = []
    for first, second in ((cosines, cosines), (-sines, sines)):
        if pairs == "interleaved":
            elements = jnp.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
        else:
            elements = jnp.concatenate([first, second], axis=-1)
        parts.append(jnp.tile(elements, (1, 1, LANES // elements.shape[-1])))
    return jnp.concatenate(parts, axis=-1).swapaxes(1, 2)


def grouped(q: Array, k: Array, v: Array) -> Array:
    """Return three arrays [..., H * K] as one, [..., 3 * H * K]; groups have 128 lanes of each."""
    parts = [x.reshape(*x.shape[:-1], -1, 1, LANES) for x in (q, k, v)]
    return jnp.concatenate(parts, axis=-2).reshape(*q.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tpu_long_attention(
    static: Static,
    qkv: Array,
    segments: tuple[Array, Array],
    angles: Array,
) -> tuple[Array, Array]:
    """Return attention [B, L, H * K] twice; see `attention.attention`.

    `qkv` [B, L, 3 * H * K] is `grouped`. `segments` are those of queries and keys, int32 [B, L].
    `angles` is `packed_rotation`'s array, which is not read without rotation. The result for a
    query that sees no key is 0. The second result has the name `static.kept_name`, and
    `layers.linear` says what it is for.
    """
    return _forward(static, qkv, segments, angles)[0]


def _forward(
    static: Static, qkv: Array, segments: tuple[Array, Array], angles: Array
) -> tuple[tuple[Array, Array], Any]:
    output, sums = _call("forward", static, (qkv,), segments, angles)
    # The backward pass reads both, so that a policy must keep both.
    kept, sums = (checkpoint_name(x, static.kept_name) for x in (output, sums))
    return (output, kept), (qkv, segments, angles, kept, sums)


def _backward(static: Static, residuals: Any, gradients: tuple[Array, Array]) -> Any:
    qkv, segments, angles, output, sums = residuals
    arrays = (qkv, output, gradients[0] + gradients[1], sums)
    (d_qkv,) = _call("backward", static, arrays, segments, angles)
    # Segments are integers, and the angles are constants.
    return d_qkv, (None, None), None


tpu_long_attention.defvjp(_forward, _backward)


def _call(
    direction: str,
    static: Static,
    arrays: tuple[Array, ...],
    segments: tuple[Array, Array],
    angles: Array,
) -> Any:
    """Run a kernel over rows, groups of heads and blocks of queries."""
    qkv = arrays[0]
    batch, length = qkv.shape[:2]
    groups = qkv.shape[2] // (3 * LANES)
    cut = tiling(length, static.window)
    heads = LANES // static.head_width
    row = pl.BlockSpec((1, length, 3 * LANES), lambda b, g, i: (b, 0, g))
    block = pl.BlockSpec((1, cut.block, LANES), lambda b, g, i: (b, i, g))
    sums = pl.BlockSpec((1, 1, heads, cut.block), lambda b, g, i: (b, g, 0, i))
    # Positions that all rows share are one row.
    of_row = (lambda b, g, i: (b, 0, 0)) if angles.shape[0] > 1 else (lambda b, g, i: (0, 0, 0))
    # A TPU's blocks have last axes of a multiple of 8 by a multiple of 128, or whole ones. So
    # segments get an axis of 1, which is whole.
    common = [
        pl.BlockSpec((1, 1, cut.block), lambda b, g, i: (b, 0, i)),
        pl.BlockSpec((1, 1, length), lambda b, g, i: (b, 0, 0)),
        pl.BlockSpec((1, *angles.shape[1:]), of_row),
    ]
    padded = length + 2 * cut.padding
    rows, columns = (padded, LANES), (LANES, padded)
    scratch = [
        pltpu.VMEM(rows, qkv.dtype),
        pltpu.VMEM(rows, qkv.dtype),
        pltpu.VMEM(columns, qkv.dtype),
    ]
    scratch.append(pltpu.VMEM(rows, jnp.int32))
    body: Any = forward_body
    in_specs, out_specs = [*common, row], [block, sums]
    out_shape = [
        jax.ShapeDtypeStruct((batch, length, groups * LANES), qkv.dtype),
        jax.ShapeDtypeStruct((batch, groups, heads, length), jnp.float32),
    ]
    if direction == "backward":
        body = backward_body
        in_specs, out_specs = [*common, row, block, block, sums], [row]
        out_shape = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)]
        scratch += [pltpu.VMEM(columns, jnp.float32)] * 2
    return pl.pallas_call(
        partial(body, static=static, cut=cut),
        grid=(batch, groups, length // cut.block),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        # The groups and blocks of a row share what the first one prepares.
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=memory_bytes(length, static.window, qkv.dtype.itemsize),
        ),
        cost_estimate=_cost(direction, static, cut, qkv, angles),
        interpret=static.interpret,
        name=f"long_attention_{direction}",
    )(*(s[:, None, :] for s in segments), angles, *arrays)


def _cost(
    direction: str, static: Static, cut: Tiling, qkv: Array, angles: Array
) -> pl.CostEstimate:
    batch, length, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    share = static.head_width / LANES
    # Products over the lanes take as long for a head of 64 as for one of 128, transposed ones half
    # as long: one of each forward, two and three backward.
    products = {"forward": 1 + share, "backward": 2 + 3 * share}[direction]
    per_score = 2 * products + SCORE_CYCLES[direction]
    per_tokens = (WINDOW_TOKEN_CYCLES if static.window else TOKEN_CYCLES)[direction]
    scores = batch * (width // static.head_width) * length * cut.keys * cut.key_tiles
    blocks = batch * (width // LANES) * length // LANES
    cycles = per_score * scores / (8 * LANES) + per_tokens * blocks
    arrays = {"forward": 4, "backward": 8}[direction]
    return pl.CostEstimate(
        flops=round(cycles * FLOPS_PER_CYCLE),
        transcendentals=scores,
        bytes_accessed=arrays * qkv.size // 3 * qkv.dtype.itemsize + 4 * angles.size,
    )
