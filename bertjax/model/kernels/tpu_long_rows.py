"""How the kernels of `tpu_long_attention` cut a row, and what they make of it before and after.

They rotate queries, keys and their gradients as columns: then the halves of a head are whole
registers, which change places at no cost. Along the lanes each change is an operation of the
transposing units, which are busy enough.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import LANES

HALF = LANES // 2
SUBLANES = 8  # rows of a register of float32
# Lanes of `qkv` and of its gradient.
QUERIES, KEYS, VALUES = (slice(n * LANES, (n + 1) * LANES) for n in range(3))
BLOCK = 1024  # queries in a block, or fewer
MAX_TILE = 512  # tiles of scores of this size hide the latency of the matrix unit
UNROLL = 4  # steps that one iteration of a loop takes
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


def place(t: Any) -> Any:
    """Return the place of 128 tokens, tile `t`, in a row."""
    return pl.ds(pl.multiple_of(t * LANES, LANES), LANES)


def equal_rows(numbers: Array) -> Array:
    """Return 128 numbers along lanes as 128 rows of equal numbers, int32 [128, 128]."""
    wide = jnp.broadcast_to(numbers.astype(jnp.float32), (LANES, LANES))
    return wide.T.astype(jnp.int32)


def write_segments(cut: Tiling, key_segments: Any, segments: Any) -> None:
    """Write the segments of the row's keys, padded: all groups of heads have the same."""
    length, padding = key_segments.shape[2], cut.padding
    for edge in _edges(cut, length):
        segments[edge, :] = jnp.full((padding, LANES), NO_SEGMENT, jnp.int32)

    def rows(t, _):  # type: ignore[no-untyped-def]
        here, there = _padded_place(cut, t)
        segments[there, :] = equal_rows(key_segments[0, :, here])
        return _

    over_rows(length // LANES, rows)


def prepare(static: Static, cut: Tiling, inputs: Any, scratch: Any) -> None:
    """Write the rotated keys and the values of the row, both padded."""
    angles, qkv = inputs
    rows_k, rows_v = scratch
    length, padding = qkv.shape[1], cut.padding
    for edge in _edges(cut, length):
        rows_k[edge, :] = jnp.zeros((padding, LANES), rows_k.dtype)
        rows_v[edge, :] = jnp.zeros((padding, LANES), rows_v.dtype)

    def rows(t, _):  # type: ignore[no-untyped-def]
        here, there = _padded_place(cut, t)
        keys = qkv[0, here, KEYS]
        if static.pairs:
            turned = rotated(static, keys.T.astype(jnp.float32), angles, here, 1)
            keys = turned.T.astype(keys.dtype)
        rows_k[there, :] = keys
        rows_v[there, :] = qkv[0, here, VALUES]
        return _

    over_rows(length // LANES, rows)


def _edges(cut: Tiling, length: int) -> list[Any]:
    """Return the places of the padding, before the row and after it."""
    if not cut.padding:
        return []
    return [pl.ds(start, cut.padding) for start in (0, length + cut.padding)]


def _padded_place(cut: Tiling, t: Any) -> tuple[Any, Any]:
    """Return the place of 128 tokens in the row, and in the padded row."""
    return place(t), pl.ds(pl.multiple_of(t * LANES + cut.padding, HALF), LANES)


def transpose_rows(rows: Any, columns: Any, *zeroed: Any) -> None:
    """Write `columns`, and zeros in the arrays `zeroed` of the same shape."""

    def tile(t, _):  # type: ignore[no-untyped-def]
        here = place(t)
        columns[:, here] = rows[here, :].T
        # In this loop, because the compiler would move stores behind it into each iteration.
        for array in zeroed:
            array[:, here] = jnp.zeros((LANES, LANES), array.dtype)
        return _

    over_rows(rows.shape[0] // LANES, tile)


def over_rows(count: int, body: Any) -> None:
    """Run `body(i, 0)` for each of `count` numbers."""
    # Some in an iteration fill each other's waits.
    rest = count % UNROLL
    jax.lax.fori_loop(0, count - rest, body, 0, unroll=UNROLL)
    for i in range(count - rest, count):
        body(i, 0)


def columns_of(padded: Any, cut: Tiling, t: Any) -> Array:
    """Return the columns of 128 tokens of the row, [128, 128], from those of the padded row."""

    def tile(n):  # type: ignore[no-untyped-def]
        return padded[:, place(n)]

    first = t + cut.padding // LANES
    if cut.padding % LANES == 0:
        return tile(first)
    lane = jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), 1)
    return pltpu.roll(jnp.where(lane < HALF, tile(first + 1), tile(first)), HALF, 1)


def of_head(static: Static, head: int) -> slice:
    return slice(head * static.head_width, (head + 1) * static.head_width)


def alone(static: Static, columns: Array, head: int) -> Array:
    """Return columns in which the elements of other heads are 0."""
    zeros = jnp.zeros((static.head_width, columns.shape[1]), columns.dtype)
    count = LANES // static.head_width
    own = columns[of_head(static, head)]
    return jnp.concatenate([zeros] * head + [own] + [zeros] * (count - head - 1), axis=0)


def rotated_queries(static, angles, qkv, rows):  # type: ignore[no-untyped-def]
    """Return a tile of queries as columns, rotated and scaled."""
    columns = qkv[0, rows, QUERIES].T.astype(jnp.float32)
    turned = rotated(static, columns, angles, rows, 1)
    # Rounded as if they were rotated before the kernel.
    return turned.astype(qkv.dtype) * static.head_width**-0.5


def rotated(static: Static, x: Array, angles: Any, tokens: Any, direction: int) -> Array:
    """Return float32 columns rotated by the angles of their tokens, or back with -1."""
    if not static.pairs:
        return x
    cosines, sines = (angles[0, part * LANES : (part + 1) * LANES, tokens] for part in (0, 1))
    turned = _others(static, x) * sines
    return x * cosines + turned if direction > 0 else x * cosines - turned


def _others(static: Static, x: Array) -> Array:
    """Return columns in which the two elements of each pair have changed places."""
    distance = static.head_width // 2 if static.pairs == "half" else 1
    if distance % SUBLANES == 0:
        # Whole registers change places, which costs nothing.
        parts = [x[n * distance : (n + 1) * distance] for n in range(LANES // distance)]
        return jnp.concatenate([parts[n ^ 1] for n in range(len(parts))], axis=0)
    is_first = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0) % (2 * distance) < distance
    after, before = pltpu.roll(x, LANES - distance, 0), pltpu.roll(x, distance, 0)
    return jnp.where(is_first, after, before)
