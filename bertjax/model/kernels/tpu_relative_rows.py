"""How the kernels of `tpu_relative_attention` move scores into place, and their gradients back.

A tile has 128 queries or keys as its rows. The products of 128 queries with the vectors of all
their distances are a matrix [128, L + 128]: query r has key c at column c - r + 128. One operation
turns each row by one lane more than the row before it, and then key c is at column c. What keys
score with their distances is moved in the same way.

Scores have keys along their first axis and queries along the second, so what queries score is
transposed. For gradients the rows must be turned the other way, which the lanes cannot. So these
rows are put in the opposite order first, by a product with a matrix of ones on the antidiagonal,
which is exact. For queries the same product transposes them.

Names: arrays with `columns` in their names are transposed, [128 lanes, tokens]. `T` is the 128 rows
of a tile, `W` the 128 lanes of a group of heads, `L` the length, `M` is L + 128.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import LANES, heads, product
from bertjax.model.kernels.tpu_long_rows import KEYS, QUERIES, equal_rows, place
from bertjax.model.random_bits import score_mask


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    head_width: int
    rate: float
    """Dropout rate of the probabilities."""
    kept_name: str
    """Name of the output for `remat` policies, which may keep it for the backward pass."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no TPU."""

    @property
    def scale(self) -> float:
        """The factor of queries: three kinds of scores are added up (arXiv 2006.03654)."""
        return (3 * self.head_width) ** -0.5


def first_numbers(static: Static, qkv: Any) -> tuple[Array, Array]:
    """Return the numbers on this device of the block's first row and first head."""
    return pl.program_id(1) * qkv.shape[0], pl.program_id(0) * (LANES // static.head_width)


def over_tiles(length: int, body: Any, at_once: int = 1) -> None:
    jax.lax.fori_loop(0, length // LANES, body, 0, unroll=at_once)


def distances_of(length: int, t: Any) -> Any:
    """Return the place in a table of the L + 128 distances that tile `t` meets."""
    return pl.ds(pl.multiple_of(length - LANES - t * LANES, LANES), length + LANES)


def scaled(static: Static, qkv: Any, row: Any, here: Any) -> Array:
    return qkv[row, here, QUERIES] * static.scale


def write_segments(key_segments, segments, row, here):  # type: ignore[no-untyped-def]
    """Write the segments of a tile's keys."""
    segments[here, :] = equal_rows(key_segments[row, :, here])


def skew_keys(static, queries_of, qkv, target, row, t):  # type: ignore[no-untyped-def]
    """Write what the keys of tile `t` score with the distances of all queries."""
    here, length = place(t), qkv.shape[1]
    k_TxW = qkv[row, here, KEYS]
    for head, lanes in heads(static.head_width):
        vectors = queries_of[:, distances_of(length, t)]
        target[head, here, :] = skewed(product(jnp.where(lanes, k_TxW, 0), vectors, 1, 0))


def scores_of(keys_of, qkv, row, q_TxW, t):  # type: ignore[no-untyped-def]
    """Return what the queries of tile `t` score with all keys and with their distances, [L, T]."""
    length = qkv.shape[1]
    relative = skewed(product(q_TxW, keys_of[:, distances_of(length, t)], 1, 0))
    return (relative + product(q_TxW, qkv[row, :, KEYS], 1, 1)).T


def skewed(x_TxM: Array) -> Array:
    """Return element [r, c - r + 128] at [r, c], [T, L]."""
    width = x_TxM.shape[1]
    # Turned by a multiple of 128 and the row's number: a v5e turns the lanes of a register by fewer
    # than 128.
    return pltpu.roll(x_TxM, width - LANES, 1, stride=1, stride_axis=0)[:, : width - LANES]


def unskewed(x_TxL: Array) -> Array:
    """Undo `skewed` of rows in the opposite order, [T, M]; the elements around are 0.

    They are one column further to the left than those that `skewed` takes.
    """
    padded = jnp.concatenate([x_TxL, jnp.zeros((LANES, LANES), x_TxL.dtype)], axis=1)
    return pltpu.roll(padded, 0, 1, stride=1, stride_axis=0)


def opposite(dtype: Any) -> Array:
    """Return the matrix [T, T] that puts 128 rows, or columns, in the opposite order."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    return jnp.where(row + column == LANES - 1, 1, 0).astype(dtype)


def rows_of(columns: list[Array], dtype: Any) -> Array:
    """Return the rows [T, W] of float32 columns that are in the opposite order."""
    x_WxT = jnp.concatenate(columns, axis=0)
    high = x_WxT.astype(dtype)
    rows = product(opposite(dtype), high, 1, 1)
    if dtype == jnp.float32:
        return rows
    # What the first rounding leaves, so that 16 bits are exact.
    low = (x_WxT - high.astype(jnp.float32)).astype(dtype)
    return rows + product(opposite(dtype), low, 1, 1)


def kept(static, seed, first, place, shape):  # type: ignore[no-untyped-def]
    """Return the mask of a tile's probabilities, [L, T]; `place` is (row, head, tile)."""
    row, head, t = place
    key, query = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    query += t * LANES
    return score_mask(seed, first[0] + row, first[1] + head, query, key, shape[0], static.rate)
