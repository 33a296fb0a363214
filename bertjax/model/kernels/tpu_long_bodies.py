"""What the kernels of `tpu_long_attention` compute for one block of queries.

`qkv` has queries, keys and values of the block's heads side by side, 128 lanes each.
A tile of scores has keys along its first axis and queries along the second. Arrays whose names have
`columns` are transposed: [128 lanes, tokens]. `T` is the number of queries in a tile, `M` that of
keys, `W` the 128 lanes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import LANES, MASKED, heads, product

HALF = LANES // 2
# Lanes of `qkv` and of its gradient.
QUERIES, KEYS, VALUES = (slice(n * LANES, (n + 1) * LANES) for n in range(3))
BLOCK = 1024  # queries in a block, or fewer
MAX_TILE = 512  # tiles of scores of this size hide the latency of the matrix unit
# Not less than the largest score of a query that sees a key, and far above MASKED. A query that
# sees none gets probabilities exp(MASKED - FLOOR), which are 0.
FLOOR = -1e30
NO_SEGMENT = -2  # of the padding around a row; no query and no key has it


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    head_width: int
    window: int
    """Window width in tokens; 0: a query sees all keys."""
    pairs: str
    """Which elements of a head are rotated together: `half`, `interleaved`, or `` for none."""
    kept_name: str
    """Name of the output for `remat` policies, which may keep it for the backward pass."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no TPU."""


class Tiling(NamedTuple):
    """How a row is cut."""

    block: int
    """Queries in a block."""
    queries: int
    """Queries in a tile of scores."""
    keys: int
    """Keys in a tile of scores."""
    key_tiles: int
    """Number of tiles of keys that a tile of queries meets."""
    padding: int
    """Keys before the row's first and after its last one."""


def tiling(length: int, window: int) -> Tiling:
    """Return how rows of `length` ids, a multiple of 128, are cut; a `window` of 0: global."""
    block = _largest_divisor(length, BLOCK)
    if not window:
        keys = _largest_divisor(length, MAX_TILE)
        return Tiling(block, _largest_divisor(block, MAX_TILE), keys, length // keys, 0)
    # Rounded up, so that the keys of all tiles together are a multiple of 128.
    padding = -(-(window // 2) // HALF) * HALF
    seen = LANES + 2 * padding
    keys = seen if seen <= MAX_TILE else LANES
    return Tiling(block, LANES, keys, seen // keys, padding)


def _largest_divisor(length: int, limit: int) -> int:
    sizes = range(min(length, limit), 0, -LANES)
    return next(size for size in sizes if length % size == 0)


def forward_body(  # type: ignore[no-untyped-def]
    query_segments, key_segments, angles, qkv, out, sums, rows_k, rows_v, columns_v, segments,
    *, static, cut
):  # fmt: skip
    # Not read in the functions below: Pallas's interpreter does not find it there.
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _():  # type: ignore[no-untyped-def]
        _prepare(static, cut, (key_segments, angles, qkv), (rows_k, rows_v, segments))
        _transpose_rows(rows_v, columns_v)

    def tile(j, _):  # type: ignore[no-untyped-def]
        at, rows = _places(cut, step, j)
        q_TxW = _rotated_queries(static, angles, qkv, rows)
        seen_by = query_segments[0, :, at]

        def keys(n, states):  # type: ignore[no-untyped-def]
            here = _keys(cut, rows, n)
            seen = _seen(static, cut, seen_by, segments[here, :], n)
            k_MxW, new = rows_k[here, :], []
            for (head, lanes), (largest, total, mixed) in zip(
                heads(static.head_width), states, strict=True
            ):
                scores = jnp.where(seen, product(k_MxW, jnp.where(lanes, q_TxW, 0), 1, 1), MASKED)
                higher = jnp.maximum(largest, jnp.max(scores, axis=0, keepdims=True))
                raised, shrink = jnp.exp(scores - higher), jnp.exp(largest - higher)
                values = columns_v[_of_head(static, head), here]
                added = product(values, raised.astype(qkv.dtype), 1, 0)
                summed = jnp.sum(raised, axis=0, keepdims=True)
                new.append((higher, shrink * total + summed, shrink * mixed + added))
            return tuple(new)

        state = (
            jnp.full((1, cut.queries), FLOOR, jnp.float32),
            jnp.zeros((1, cut.queries), jnp.float32),
            jnp.zeros((static.head_width, cut.queries), jnp.float32),
        )
        states = _over_tiles(cut.key_tiles, keys, (state,) * len(heads(static.head_width)))
        parts = []
        for (head, _lanes), (largest, total, mixed) in zip(
            heads(static.head_width), states, strict=True
        ):
            # Not 0, which a query that sees no key has.
            total = jnp.maximum(total, 1e-30)
            parts.append(mixed / total)
            sums[0, 0, head : head + 1, at] = largest + jnp.log(total)
        out[0, at, :] = jnp.concatenate(parts, axis=0).T.astype(out.dtype)
        return _

    _over_queries(cut, tile)


def backward_body(  # type: ignore[no-untyped-def]
    query_segments, key_segments, angles, qkv, out, gradient, sums, d_qkv,
    rows_k, rows_v, columns_k, segments, columns_dk, columns_dv, *, static, cut
):  # fmt: skip
    # Not read in the functions below: Pallas's interpreter does not find it there.
    step, steps = pl.program_id(2), pl.num_programs(2)

    @pl.when(step == 0)
    def _():  # type: ignore[no-untyped-def]
        _prepare(static, cut, (key_segments, angles, qkv), (rows_k, rows_v, segments))
        _transpose_rows(rows_k, columns_k)
        columns_dk[...] = jnp.zeros(columns_dk.shape, jnp.float32)
        columns_dv[...] = jnp.zeros(columns_dv.shape, jnp.float32)

    def tile(j, _):  # type: ignore[no-untyped-def]
        at, rows = _places(cut, step, j)
        q_TxW, g_TxW = _rotated_queries(static, angles, qkv, rows), gradient[0, at, :]
        q_WxT, g_WxT = _transposed(q_TxW), _transposed(g_TxW)
        # The mean of the gradients of a query's probabilities is its output times the gradient.
        means = (g_TxW.astype(jnp.float32) * out[0, at, :].astype(jnp.float32)).T
        seen_by = query_segments[0, :, at]

        def keys(n, sums_of_dq):  # type: ignore[no-untyped-def]
            here = _keys(cut, rows, n)
            seen = _seen(static, cut, seen_by, segments[here, :], n)
            k_MxW, v_MxW, new = rows_k[here, :], rows_v[here, :], []
            for (head, lanes), summed in zip(heads(static.head_width), sums_of_dq, strict=True):
                own = _of_head(static, head)
                q_h, g_h = (jnp.where(lanes, x, 0) for x in (q_TxW, g_TxW))
                scores = product(k_MxW, q_h, 1, 1) - sums[0, 0, head : head + 1, at]
                raised = jnp.exp(jnp.where(seen, scores, MASKED))
                mean = jnp.sum(means[own], axis=0, keepdims=True)
                d_scores = (raised * (product(v_MxW, g_h, 1, 1) - mean)).astype(qkv.dtype)
                columns_dv[own, here] += product(g_WxT[own], raised.astype(qkv.dtype), 1, 1)
                columns_dk[own, here] += product(q_WxT[own], d_scores, 1, 1)
                new.append(summed + product(columns_k[own, here], d_scores, 1, 0))
            return tuple(new)

        zeros = jnp.zeros((static.head_width, cut.queries), jnp.float32)
        parts = _over_tiles(cut.key_tiles, keys, (zeros,) * len(heads(static.head_width)))
        # The scores were scaled, so that the gradient of the queries needs the same factor.
        d_rows = jnp.concatenate(parts, axis=0).T * static.head_width**-0.5
        d_rows = _rotated(static, d_rows, angles, rows, -1)
        d_qkv[0, rows, QUERIES] = d_rows.astype(d_qkv.dtype)
        return _

    _over_queries(cut, tile)

    @pl.when(step == steps - 1)
    def _():  # type: ignore[no-untyped-def]
        def rows(t, _):  # type: ignore[no-untyped-def]
            here = pl.ds(t * LANES, LANES)
            d_rows = _rotated(static, _row_tile(columns_dk, cut, t), angles, here, -1)
            d_qkv[0, here, KEYS] = d_rows.astype(d_qkv.dtype)
            d_qkv[0, here, VALUES] = _row_tile(columns_dv, cut, t).astype(d_qkv.dtype)
            return _

        jax.lax.fori_loop(0, qkv.shape[1] // LANES, rows, 0)


def _over_queries(cut: Tiling, body: Any) -> None:
    """Run `body(j, 0)` for each tile of queries of a block."""
    count = cut.block // cut.queries
    # Two tiles at a time fill each other's waits where the tiles are small.
    unroll = 2 if cut.padding and count % 2 == 0 else 1
    jax.lax.fori_loop(0, count, body, 0, unroll=unroll)


def _over_tiles(count: int, body: Any, states: Any) -> Any:
    return body(0, states) if count == 1 else jax.lax.fori_loop(0, count, body, states)


def _places(cut: Tiling, step: Any, j: Any) -> tuple[Any, Any]:
    """Return the place of tile `j` of queries in its block, and its place in the row."""
    first = pl.multiple_of(j * cut.queries, LANES)
    return pl.ds(first, cut.queries), pl.ds(step * cut.block + first, cut.queries)


def _keys(cut: Tiling, queries: Any, n: Any) -> Any:
    """Return the place in the padded row of tile `n` of the keys that a tile of queries meets.

    In a window the first one is as far before the first query as the row is padded.
    """
    first = queries.start if cut.padding else 0
    return pl.ds(pl.multiple_of(first + n * cut.keys, LANES), cut.keys)


def _prepare(static: Static, cut: Tiling, inputs: Any, scratch: Any) -> None:
    """Write the row's rotated keys, its values and the segments of the keys, all padded."""
    key_segments, angles, qkv = inputs
    rows_k, rows_v, segments = scratch
    length, padding = qkv.shape[1], cut.padding
    for start in {0, length + padding} if padding else ():
        edge = pl.ds(start, padding)
        rows_k[edge, :] = jnp.zeros((padding, LANES), rows_k.dtype)
        rows_v[edge, :] = jnp.zeros((padding, LANES), rows_v.dtype)
        segments[edge, :] = jnp.full((padding, LANES), NO_SEGMENT, jnp.int32)

    def rows(t, _):  # type: ignore[no-untyped-def]
        here = pl.ds(pl.multiple_of(t * LANES, LANES), LANES)
        there = pl.ds(pl.multiple_of(t * LANES + padding, HALF), LANES)
        rotated = _rotated(static, qkv[0, here, KEYS].astype(jnp.float32), angles, here, 1)
        rows_k[there, :] = rotated.astype(rows_k.dtype)
        rows_v[there, :] = qkv[0, here, VALUES]
        # The numbers of 128 keys along lanes become 128 rows of equal numbers.
        numbers = key_segments[0, :, here].astype(jnp.float32)
        segments[there, :] = jnp.broadcast_to(numbers, (LANES, LANES)).T.astype(jnp.int32)
        return _

    jax.lax.fori_loop(0, length // LANES, rows, 0)


def _transpose_rows(rows: Any, columns: Any) -> None:
    def tile(t, _):  # type: ignore[no-untyped-def]
        here = pl.ds(pl.multiple_of(t * LANES, LANES), LANES)
        columns[:, here] = _transposed(rows[here, :])
        return _

    jax.lax.fori_loop(0, rows.shape[0] // LANES, tile, 0)


def _transposed(x: Array) -> Array:
    return x.astype(jnp.float32).T.astype(x.dtype)


def _row_tile(columns: Any, cut: Tiling, t: Any) -> Array:
    """Return 128 rows of the transposed array, float32 [128, 128], without the row's padding."""
    first = t + cut.padding // LANES
    tile = columns[:, pl.ds(pl.multiple_of(first * LANES, LANES), LANES)].T
    if cut.padding % LANES == 0:
        return tile
    next_tile = columns[:, pl.ds(pl.multiple_of((first + 1) * LANES, LANES), LANES)].T
    return jnp.concatenate([tile[HALF:], next_tile[:HALF]], axis=0)


def _of_head(static: Static, head: int) -> slice:
    return slice(head * static.head_width, (head + 1) * static.head_width)


def _seen(static: Static, cut: Tiling, query_segments: Array, segments: Array, n: Any) -> Array:
    """Return [keys, queries], True where a query sees a key of the tile with the number `n`.

    `segments` is constant along its second axis, of 128.
    """
    repeated = jnp.concatenate([segments] * (cut.queries // LANES), axis=1)
    seen = repeated == query_segments
    if static.window:
        key, query = (jax.lax.broadcasted_iota(jnp.int32, seen.shape, axis) for axis in (0, 1))
        # The first key of the first tile is as far before the first query as the row is padded.
        distance = key - query + (n * cut.keys - cut.padding)
        seen &= jnp.abs(distance) <= static.window // 2
    return seen


def _rotated_queries(static, angles, qkv, rows):  # type: ignore[no-untyped-def]
    """Return a tile of queries, rotated and scaled."""
    rotated = _rotated(static, qkv[0, rows, QUERIES].astype(jnp.float32), angles, rows, 1)
    # Rounded as if they were rotated before the kernel.
    return rotated.astype(qkv.dtype) * static.head_width**-0.5


def _rotated(static: Static, x: Array, angles: Any, rows: Any, direction: int) -> Array:
    """Return float32 x [rows, 128] rotated by the angles of the rows, or back with -1."""
    if not static.pairs:
        return x
    table = angles[0, rows, :]
    swapped = pltpu.roll(table, HALF, 1)
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    cosines = jnp.where(lane < HALF, table, swapped)
    sines = jnp.where(lane < HALF, swapped, table) * direction
    distance = static.head_width // 2 if static.pairs == "half" else 1
    is_first = lane % (2 * distance) < distance
    # The other element of each pair, which stands before or after it.
    after, before = pltpu.roll(x, LANES - distance, 1), pltpu.roll(x, distance, 1)
    return x * cosines + jnp.where(is_first, -after, before) * sines
