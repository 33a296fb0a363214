"""Disentangled attention over whole rows in one TPU kernel, forward and backward.

Scores of content and of relative positions, softmax and dropout stay in the memory of a core. What
queries and keys score with each distance is moved into place there too: see
`tpu_relative_rows`. As in `tpu_long_attention`, 128 lanes hold 128 / K heads side by side, and
queries, keys and values are one array.

The two tables have a vector for each distance, and all rows of the batch share them. So the kernel
runs over groups of heads first and over rows second: a group's tables are read once, and their
gradients are summed in the memory of a core.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import FLOPS_PER_CYCLE, LANES, MAX_TOKENS, rows_of_block
from bertjax.model.kernels.tpu_relative_bodies import backward_body, forward_body
from bertjax.model.kernels.tpu_relative_rows import Static

# A v5e's cycles for 8 x 128 scores and for 128 tokens of a group, products included, by the
# compiler's schedule (docs/architecture.md).
SCORE_CYCLES = {"forward": 11, "backward": 20}
DROPOUT_CYCLES = {"forward": 3, "backward": 2}
TOKEN_CYCLES = {"forward": 600, "backward": 1800}
# A v4 and earlier chips, which have no more than 16 MiB, cannot turn each row by lanes of its own.
LEAST_MEMORY = 32 << 20


class Tables(NamedTuple):
    """Vectors of the distances -(L - 1)..L of query - key, transposed: [H * K, 2 L]."""

    keys: Array
    """What queries are compared with, from the distance L - 1 down to -L."""
    queries: Array
    """What keys are compared with, from the distance -(L - 1) up to L, scaled."""


def fits(length: int, num_heads: int, head_width: int, itemsize: int, core_memory: int) -> bool:
    """Return True if the kernel supports rows of this length and `num_heads` heads per device.

    `itemsize` is that of the dtype, `core_memory` the bytes of a core's memory.
    """
    if length % LANES or LANES % head_width or num_heads * head_width % LANES:
        return False
    needed = memory_bytes(length, head_width, itemsize)
    return max(needed, LEAST_MEMORY) <= core_memory


def memory_bytes(length: int, head_width: int, itemsize: int) -> int:
    """Return the bytes of a core's memory that the backward pass needs for rows of this length."""
    heads = LANES // head_width
    # Scores moved into place in float32, probabilities, and gradients of scores.
    scores = heads * length * length * (4 + 2 * itemsize)
    # Queries, keys, values, output and gradients, twice because blocks are copied while others are
    # computed; and three transposed.
    tokens = max(MAX_TOKENS, length)
    arrays = LANES * tokens * itemsize * 2 * (3 + 3 + 2) + 3 * LANES * length * itemsize
    segments = LANES * length * 4
    # Two forms of two tables twice, and gradients in float32.
    tables = 2 * LANES * 2 * length * 2 * (2 * itemsize + 4)
    # Tiles of scores of all distances and of pairs, for each head.
    tiles = heads * 6 * LANES * (length + LANES) * 4
    return scores + arrays + segments + tables + tiles


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tpu_relative_attention(
    static: Static, qkv: Array, tables: Tables, segments: tuple[Array, Array], seed: Array
) -> tuple[Array, Array]:
    """Return disentangled attention [B, L, H * K] twice; see `attention.attention`.

    `qkv` [B, L, 3 * H * K] is `tpu_long_attention.grouped`. `segments` are those of queries and
    keys, int32 [B, L]. `seed` is that of `random_bits.score_mask`. The result for a query that sees
    no key is 0. The second result has the name `static.kept_name`, and `layers.linear` says what it
    is for.
    """
    return _forward(static, qkv, tables, segments, seed)[0]


def _forward(
    static: Static, qkv: Array, tables: Tables, segments: tuple[Array, Array], seed: Array
) -> tuple[tuple[Array, Array], Any]:
    output, sums = _call("forward", static, tables, (qkv,), segments, seed)
    # The backward pass reads both, so that a policy must keep both.
    kept, sums = (checkpoint_name(x, static.kept_name) for x in (output, sums))
    return (output, kept), (qkv, tables, segments, seed, kept, sums)


def _backward(static: Static, residuals: Any, gradients: tuple[Array, Array]) -> Any:
    qkv, tables, segments, seed, output, sums = residuals
    arrays = (qkv, output, gradients[0] + gradients[1], sums)
    d_qkv, *d_tables = _call("backward", static, tables, arrays, segments, seed)
    dtype = tables.keys.dtype
    # Segments and seed are integers, which have no gradient.
    return d_qkv, Tables(*(d.astype(dtype) for d in d_tables)), (None, None), None


tpu_relative_attention.defvjp(_forward, _backward)


def _call(
    direction: str,
    static: Static,
    tables: Tables,
    arrays: tuple[Array, ...],
    segments: tuple[Array, Array],
    seed: Array,
) -> Any:
    """Run a kernel over groups of heads and blocks of rows."""
    qkv = arrays[0]
    batch, length = qkv.shape[:2]
    groups, heads = qkv.shape[2] // (3 * LANES), LANES // static.head_width
    rows = rows_of_block(batch, length)
    wide = pl.BlockSpec((rows, length, 3 * LANES), lambda g, b: (b, 0, g))
    block = pl.BlockSpec((rows, length, LANES), lambda g, b: (b, 0, g))
    sums = pl.BlockSpec((rows, 1, heads, length), lambda g, b: (b, g, 0, 0))
    # A TPU's blocks have last axes of a multiple of 8 by a multiple of 128, or whole ones. So
    # segments get an axis of 1, which is whole.
    segment = pl.BlockSpec((rows, 1, length), lambda g, b: (b, 0, 0))
    table = pl.BlockSpec((LANES, 2 * length), lambda g, b: (g, 0))
    columns = pltpu.VMEM((LANES, length), qkv.dtype)
    scratch = [
        pltpu.VMEM((length, LANES), jnp.int32),
        pltpu.VMEM((heads, length, length), jnp.float32),
        columns,
    ]
    body: Any = forward_body
    in_specs, out_specs = [wide], [block, sums]
    out_shape = [
        jax.ShapeDtypeStruct((batch, length, groups * LANES), qkv.dtype),
        jax.ShapeDtypeStruct((batch, groups, heads, length), jnp.float32),
    ]
    read = tuple(jnp.roll(table, 1, axis=1) for table in tables)
    if direction == "backward":
        body = backward_body
        read += tuple(tables)
        in_specs, out_specs = [wide, block, block, sums], [wide, table, table]
        summed = jax.ShapeDtypeStruct(tables.keys.shape, jnp.float32)
        out_shape = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), summed, summed]
        scratch += [columns] * 2 + [pltpu.VMEM((heads, length, length), qkv.dtype)] * 2
    in_specs = [segment, segment, *[table] * len(read), *in_specs]
    return pl.pallas_call(
        partial(body, static=static),
        grid=(groups, batch // rows),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), *in_specs],
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        # All rows of a group add to the same gradients of its tables.
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=memory_bytes(length, static.head_width, qkv.dtype.itemsize),
        ),
        cost_estimate=_cost(direction, static, qkv),
        interpret=static.interpret,
        name=f"relative_attention_{direction}",
    )(seed, *(s[:, None, :] for s in segments), *read, *arrays)


def _cost(direction: str, static: Static, qkv: Array) -> pl.CostEstimate:
    batch, length, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    scores = batch * (width // static.head_width) * length * length
    per_score = SCORE_CYCLES[direction] + (DROPOUT_CYCLES[direction] if static.rate else 0)
    blocks = batch * (width // LANES) * length // LANES
    cycles = per_score * scores / (8 * LANES) + TOKEN_CYCLES[direction] * blocks
    arrays = {"forward": 4, "backward": 8}[direction]
    return pl.CostEstimate(
        flops=round(cycles * FLOPS_PER_CYCLE),
        transcendentals=scores,
        bytes_accessed=arrays * qkv.size // 3 * qkv.dtype.itemsize,
    )
