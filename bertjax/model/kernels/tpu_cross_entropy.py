"""What the softmax of a large vocabulary needs, in TPU kernels that keep logits on the chip.

The logits are the products of N entries with V rows of a table. A tile of them has rows of the
table along its first axis and entries along the second, so that the largest logit of an entry and
the sum of its exponentials are taken over the first axis, which costs least. The vectors of all
entries stay in the memory of a core, and tiles of the table come one after the other, each once in
a direction. The backward pass computes the logits again.

Factors are in the dtype of the entries, sums in float32. There is no second derivative.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import FLOPS_PER_CYCLE, LANES, MASKED, product

SUBLANES = 8  # rows of a vector register
CORES = 2  # of a v4 or v5p; each takes a half of the vocabulary
# Rows of a part of a tile. A matrix unit is loaded with the next entries while so many rows stream
# through it; and the parts do not wait for each other's largest logits.
PART = 256
TILES = (768, 512, 1024)  # rows of the table in a tile; the first is taken among equals
ENTRIES = (512, 384, 256, 128)  # entries of a tile

# A v5e's cycles besides those of the products, by the compiler's schedule (docs/architecture.md).
ROW_CYCLES = {"forward": (70, 7.5), "backward": (110, 47)}  # of 128 rows; of 128 x 128 of a table
ENTRY_CYCLES = {"forward": 4, "backward": 21}  # of 8 x 128 numbers of the vectors


Interpret = bool | pltpu.InterpretParams


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    interpret: Interpret
    """True to run in Pallas's interpreter, or the parameters of that for TPUs."""


class Tiling(NamedTuple):
    """How the logits are cut."""

    rows: int
    """Rows of the table in a tile."""
    tiles: int
    """Number of tiles of a core that have rows of the table, or at most one that has none."""
    cores: int
    """Number of parts of the vocabulary."""
    entries: int
    """Entries in a tile."""
    padded: int
    """Number of entries with the padding that makes them a multiple of `entries`."""


def tiling(entries: int, rows: int) -> Tiling:
    """Return how the logits of `entries` vectors and `rows` rows of a table are cut."""
    tile = min(TILES, key=lambda size: -(-rows // size) * size)
    while tile - PART >= rows:
        tile -= PART
    count = -(-rows // tile)
    cores = min(CORES, count)
    columns = min(ENTRIES, key=lambda size: -(-entries // size) * size)
    return Tiling(tile, -(-count // cores), cores, columns, -(-entries // columns) * columns)


def fits(entries: int, rows: int, width: int, itemsize: int, core_memory: int) -> bool:
    """Return True if the kernels support `entries` vectors of this width and a table of `rows`.

    `itemsize` is that of the vectors' dtype, `core_memory` the bytes of a core's memory.
    """
    return width % LANES == 0 and memory_bytes(entries, rows, width, itemsize) <= core_memory


def memory_bytes(entries: int, rows: int, width: int, itemsize: int) -> int:
    """Return the bytes of a core's memory that the backward pass needs."""
    cut = tiling(entries, rows)
    # The vectors, and the float32 sums of their gradients.
    all_entries = cut.padded * width * (itemsize + 4)
    # Four numbers for each entry, which take eight times their bytes, twice.
    all_entries += 2 * 4 * cut.padded * SUBLANES * 4
    # A tile of the table (float32 at most) and of its gradient twice, because they are copied while
    # others are computed; the tile as it is multiplied, and the sums of its gradient.
    tile = cut.rows * width * (2 * (4 + itemsize) + 2 * itemsize + 4)
    # Biases and their gradients along sublanes, and tiles of logits.
    return all_entries + tile + 2 * cut.rows * LANES * 4 + 3 * cut.rows * cut.entries * 4


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tpu_cross_entropy(
    static: Static, x: Array, table: Array, read: Array, bias: Array, labels: Array
) -> Array:
    """Return what cross-entropy needs of the logits `x @ table.T + bias`, float32 [3, N].

    These are the logarithm of the softmax's denominator, the logit of the label, and the largest
    logit, which has no gradient. `x` and `table` are [N, E] and [V, E] in the dtype of the products
    and of their gradients, `bias` is float32 [V]. `labels` are int32 [N]; for one that is not in
    0..V-1 the second number has no meaning.

    `read` is the table that is read: `table`, or what it was rounded from. `table` itself gets the
    gradient only.
    """
    return _forward(static, x, table, read, bias, labels)[0]


def _forward(
    static: Static, x: Array, table: Array, read: Array, bias: Array, labels: Array
) -> tuple[Array, Any]:
    x_padded, labels_padded = _padded_entries(x, labels)
    (states,) = _call("forward", static, (bias, labels_padded[None, :]), x_padded, read)
    largest, totals, picked = (states[:, kind].reshape(-1, states.shape[-1]) for kind in range(3))
    highest = jnp.max(largest, axis=0)
    log_total = jnp.log(jnp.sum(totals * jnp.exp(largest - highest[None, :]), axis=0)) + highest
    # All others are 0, since at most one row is the label's.
    results = jnp.stack([log_total, jnp.sum(picked, axis=0), highest])
    return results[:, : x.shape[0]], (x, read, bias, labels, log_total)


def _backward(static: Static, residuals: Any, gradients: Array) -> Any:
    x, read, bias, labels, log_total = residuals
    x_padded, labels_padded = _padded_entries(x, labels)
    missing = x_padded.shape[0] - x.shape[0]
    # With gradients of 0, entries of the padding add nothing.
    of_log_total, of_picked = (jnp.pad(gradients[kind], (0, missing)) for kind in range(2))
    vectors = (labels_padded, log_total, of_log_total, of_picked)
    rows = (bias, *(v[None, :] for v in vectors))
    d_x, d_table, d_bias = _call("backward", static, rows, x_padded, read)
    # Each core has a sum over its own part of the vocabulary.
    columns = sum(d_x[core] for core in range(d_x.shape[0]))
    d_x = columns.T[: x.shape[0]].astype(x.dtype)
    return d_x, d_table, None, d_bias[0, : bias.shape[0]], None


tpu_cross_entropy.defvjp(_forward, _backward)


def _padded_entries(x: Array, labels: Array) -> tuple[Array, Array]:
    """Return both with the padding of `tiling`: vectors of 0 with the label -1."""
    missing = tiling(x.shape[0], 1).padded - x.shape[0]
    return (
        jnp.pad(x, ((0, missing), (0, 0))),
        jnp.pad(labels, (0, missing), constant_values=-1),
    )


def _call(direction: str, static: Static, vectors: Any, x: Array, table: Array) -> Any:
    """Run a kernel over tiles of the table.

    `vectors` are the bias [V], and one number for each entry, [1, N].
    """
    bias, *per_entry = vectors
    (size, width), count = x.shape, table.shape[0]
    cut = tiling(size, count)
    all_rows = cut.cores * cut.tiles * cut.rows
    # No logit is lower than those of rows that are not there.
    bias = jnp.pad(bias, (0, all_rows - count), constant_values=MASKED)[None, :]
    last = -(-count // cut.rows) - 1

    def own(core: Any, tile: Any) -> Any:
        # A tile without rows of the table keeps the place of the tile before.
        return jnp.minimum(core * cut.tiles + tile, last)

    once = pl.Buffered(1)
    row_tile = pl.BlockSpec((cut.rows, width), lambda c, t: (own(c, t), 0))
    bias_tile = pl.BlockSpec((1, cut.rows), lambda c, t: (0, c * cut.tiles + t))
    entries = pl.BlockSpec((size, width), lambda c, t: (0, 0), pipeline_mode=once)
    numbers = pl.BlockSpec((1, size), lambda c, t: (0, 0))
    scratch = [pltpu.VMEM((cut.rows, width), x.dtype), pltpu.VMEM((cut.rows, LANES), jnp.float32)]
    if direction == "forward":
        body: Any = _forward_body
        states = (3, SUBLANES, size)
        out_specs = [pl.BlockSpec((1, *states), lambda c, t: (c, 0, 0, 0))]
        out_shape = [jax.ShapeDtypeStruct((cut.cores, *states), jnp.float32)]
    else:
        body = _backward_body
        out_specs = [
            pl.BlockSpec((1, width, size), lambda c, t: (c, 0, 0), pipeline_mode=once),
            row_tile,
            bias_tile,
        ]
        out_shape = [
            jax.ShapeDtypeStruct((cut.cores, width, size), jnp.float32),
            jax.ShapeDtypeStruct((count, width), x.dtype),
            jax.ShapeDtypeStruct(bias.shape, jnp.float32),
        ]
        scratch += [
            pltpu.VMEM((width, cut.rows), x.dtype),
            pltpu.VMEM((cut.rows, width), jnp.float32),
            pltpu.VMEM((cut.rows, LANES), jnp.float32),
        ]
    memory = memory_bytes(size, count, width, x.dtype.itemsize)
    return pl.pallas_call(
        partial(body, cut=cut, count=count),
        grid=(cut.cores, cut.tiles),
        in_specs=[bias_tile, *[numbers] * len(per_entry), entries, row_tile],
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        # The tiles of a core run in order, because they add to the sums of the same entries.
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=memory
        ),
        cost_estimate=_cost(direction, cut, width, table),
        interpret=static.interpret,
        name=f"cross_entropy_{direction}",
    )(bias, *per_entry, x, table)


def _cost(direction: str, cut: Tiling, width: int, table: Array) -> pl.CostEstimate:
    all_rows, blocks = cut.cores * cut.tiles * cut.rows, width // LANES
    products = {"forward": 1, "backward": 3}[direction]
    # For 8 x 128 logits. Products of more blocks hide more of the rest.
    rest = {"forward": max(0.5, 1.55 - 0.1 * blocks), "backward": 0.45}[direction]
    per_rows = ROW_CYCLES[direction][0] + ROW_CYCLES[direction][1] * blocks
    cycles = all_rows * cut.padded / (SUBLANES * LANES) * (2 * products * blocks + rest)
    cycles += all_rows / LANES * per_rows
    cycles += cut.padded * width / (SUBLANES * LANES) * ENTRY_CYCLES[direction]
    gradient = {"forward": 0, "backward": 4}[direction]
    return pl.CostEstimate(
        flops=round(cycles * FLOPS_PER_CYCLE),
        transcendentals=all_rows * cut.padded,
        bytes_accessed=table.size * (4 + gradient),
    )


def _forward_body(  # type: ignore[no-untyped-def]
    bias, labels, x, table, states, rows, biases, *, cut, count
):
    tile = pl.program_id(0) * cut.tiles + pl.program_id(1)

    @pl.when(pl.program_id(1) == 0)
    def _():  # type: ignore[no-untyped-def]
        states[0, 0] = jnp.full(states.shape[2:], MASKED, jnp.float32)
        states[0, 1:] = jnp.zeros((2, *states.shape[2:]), jnp.float32)

    def entries(n, _):  # type: ignore[no-untyped-def]
        at = _entries(cut, n)
        x_TxE = x[at, :]
        largest, total, picked = (states[0, kind, :, at] for kind in range(3))
        parts = []
        for part in _parts(cut):
            logits = product(rows[part, :], x_TxE, 1, 1) + _wide(biases[part, :], cut)
            is_label = _is_label(labels[:, at] - tile * cut.rows - part.start, logits.shape)
            own = _by_sublane(logits)
            picked += jnp.sum(_by_sublane(jnp.where(is_label, logits, 0)), axis=0)
            highest = jnp.max(own, axis=0)
            parts.append((highest, jnp.sum(jnp.exp(own - highest[None]), axis=0)))
        # Each sublane has its own largest logit, and the sum of the exponentials above it.
        new = largest
        for highest, _sum in parts:
            new = jnp.maximum(new, highest)
        total = total * jnp.exp(largest - new)
        for highest, summed in parts:
            total += summed * jnp.exp(highest - new)
        for kind, value in enumerate((new, total, picked)):
            states[0, kind, :, at] = value
        return _

    @pl.when(tile * cut.rows < count)
    def _():  # type: ignore[no-untyped-def]
        _prepare(cut, tile, count, (bias, table), (rows, biases))
        jax.lax.fori_loop(0, cut.padded // cut.entries, entries, 0)


def _backward_body(  # type: ignore[no-untyped-def]
    bias, labels, log_total, of_log_total, of_picked, x, table, d_x, d_table, d_bias,
    rows, biases, columns, d_rows, d_biases, *, cut, count
):  # fmt: skip
    tile = pl.program_id(0) * cut.tiles + pl.program_id(1)

    @pl.when(pl.program_id(1) == 0)
    def _():  # type: ignore[no-untyped-def]
        d_x[...] = jnp.zeros(d_x.shape, jnp.float32)

    def entries(n, _):  # type: ignore[no-untyped-def]
        at = _entries(cut, n)
        x_TxE = x[at, :]
        logits = product(rows[...], x_TxE, 1, 1) + _wide(biases[...], cut)
        is_label = _is_label(labels[:, at] - tile * cut.rows, logits.shape)
        softmax = jnp.exp(logits - log_total[:, at])
        d_logits = softmax * of_log_total[:, at] + jnp.where(is_label, of_picked[:, at], 0)
        for first in range(0, cut.entries, LANES):
            d_biases[...] += d_logits[:, first : first + LANES]
        d_logits = d_logits.astype(x.dtype)
        d_rows[...] += product(d_logits, x_TxE, 1, 0)
        d_x[0, :, at] += product(columns[...], d_logits, 1, 0)
        return _

    @pl.when(tile * cut.rows < count)
    def _():  # type: ignore[no-untyped-def]
        _prepare(cut, tile, count, (bias, table), (rows, biases))
        columns[...] = rows[...].astype(jnp.float32).T.astype(columns.dtype)
        d_rows[...] = jnp.zeros(d_rows.shape, jnp.float32)
        d_biases[...] = jnp.zeros(d_biases.shape, jnp.float32)
        jax.lax.fori_loop(0, cut.padded // cut.entries, entries, 0)
        d_table[...] = d_rows[...].astype(d_table.dtype)
        d_bias[...] = jnp.sum(d_biases[...].T, axis=0, keepdims=True)


def _prepare(cut: Tiling, tile: Any, count: int, inputs: Any, scratch: Any) -> None:
    """Write the tile of the table as it is multiplied, and its biases along sublanes."""
    bias, table = inputs
    rows, biases = scratch
    row = jax.lax.broadcasted_iota(jnp.int32, table.shape, 0) + tile * cut.rows
    # Beyond the table's end the memory holds anything.
    rows[...] = jnp.where(row < count, table[...].astype(jnp.float32), 0).astype(rows.dtype)
    biases[...] = jnp.broadcast_to(bias[...], (LANES, cut.rows)).T


def _entries(cut: Tiling, n: Any) -> Any:
    return pl.ds(pl.multiple_of(n * cut.entries, LANES), cut.entries)


def _parts(cut: Tiling) -> list[slice]:
    return [slice(first, first + PART) for first in range(0, cut.rows, PART)]


def _wide(column: Array, cut: Tiling) -> Array:
    """Return [rows, entries] of [rows, 128], whose rows are constant."""
    return jnp.concatenate([column] * (cut.entries // LANES), axis=1)


def _is_label(labels: Array, shape: tuple[int, ...]) -> Array:
    """Return [rows, entries], True where a row is that of the label, counted from the first one."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, 0) == labels


def _by_sublane(x: Array) -> Array:
    return x.reshape(-1, SUBLANES, x.shape[1])
