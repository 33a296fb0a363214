"""What the kernels of `tpu_relative_attention` compute for one group of heads and some rows.

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

from bertjax.model.kernels.tpu_attention import LANES, MASKED, heads, product
from bertjax.model.kernels.tpu_long_bodies import FLOOR
from bertjax.model.kernels.tpu_long_rows import KEYS, QUERIES, VALUES, alone, of_head
from bertjax.model.random_bits import drop, score_mask


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


def forward_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, keys_of, queries_of, qkv, out, sums,
    segments, skewed, columns_v, *, static
):  # fmt: skip
    first = _first(static, qkv)
    length = qkv.shape[1]

    def one_row(row, _):  # type: ignore[no-untyped-def]
        def prepare(t, _):  # type: ignore[no-untyped-def]
            here = _place(t)
            _write_segments(key_segments, segments, row, here)
            columns_v[:, here] = qkv[row, here, VALUES].T
            _skew_keys(static, queries_of, qkv, skewed, row, t)
            return _

        # Two at once fill each other's waits.
        _over_tiles(length, prepare, 2)

        def tile(t, _):  # type: ignore[no-untyped-def]
            here = _place(t)
            seen = segments[...] == query_segments[row, :, here]
            q_TxW, parts = _scaled(static, qkv, row, here), []
            for head, lanes in heads(static.head_width):
                scores = _scores(keys_of, qkv, row, jnp.where(lanes, q_TxW, 0), t)
                scores = jnp.where(seen, scores + skewed[head, :, here], MASKED)
                largest = jnp.maximum(jnp.max(scores, axis=0, keepdims=True), FLOOR)
                raised = jnp.exp(scores - largest)
                # Not 0, which a query that sees no key has.
                total = jnp.maximum(jnp.sum(raised, axis=0, keepdims=True), 1e-30)
                keep = _keep(static, seed, first, (row, head, t), raised.shape)
                dropped = drop(raised, keep, 1 / (1 - static.rate)).astype(qkv.dtype)
                parts.append(product(columns_v[of_head(static, head)], dropped, 1, 0) / total)
                sums[row, 0, head : head + 1, here] = largest + jnp.log(total)
            out[row, here, :] = jnp.concatenate(parts, axis=0).astype(out.dtype).T
            return _

        _over_tiles(length, tile)
        return _

    jax.lax.fori_loop(0, qkv.shape[0], one_row, 0)


class _Given(NamedTuple):
    """What the backward pass reads."""

    seed: Any
    query_segments: Any
    key_segments: Any
    keys_of: Any
    queries_of: Any
    keys_back: Any
    """As `keys_of`, but one column further to the left: as `_unskewed` moves gradients."""
    queries_back: Any
    qkv: Any
    out: Any
    gradient: Any
    sums: Any


class _Results(NamedTuple):
    """The gradients that the backward pass writes."""

    qkv: Any
    keys_of: Any
    queries_of: Any


class _Scratch(NamedTuple):
    """What the backward pass keeps of one row."""

    segments: Any
    skewed: Any
    columns_k: Any
    columns_q: Any
    """Queries, scaled."""
    columns_gradient: Any
    dropped: Any
    """Probabilities after dropout, [heads, keys, queries]."""
    d_scores: Any


def backward_body(*refs: Any, static: Static) -> None:
    given, rest = _Given(*refs[: len(_Given._fields)]), refs[len(_Given._fields) :]
    results, scratch = _Results(*rest[:3]), _Scratch(*rest[3:])
    qkv = given.qkv
    first = _first(static, qkv)
    length = qkv.shape[1]

    @pl.when(pl.program_id(1) == 0)
    def _():  # type: ignore[no-untyped-def]
        results.keys_of[...] = jnp.zeros_like(results.keys_of)
        results.queries_of[...] = jnp.zeros_like(results.queries_of)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        def prepare(t, _):  # type: ignore[no-untyped-def]
            here = _place(t)
            _write_segments(given.key_segments, scratch.segments, row, here)
            scratch.columns_k[:, here] = qkv[row, here, KEYS].T
            scratch.columns_q[:, here] = _scaled(static, qkv, row, here).T
            scratch.columns_gradient[:, here] = given.gradient[row, here, :].T
            _skew_keys(static, given.queries_of, qkv, scratch.skewed, row, t)
            return _

        def scores(t, _):  # type: ignore[no-untyped-def]
            _write_d_scores(static, given, scratch, first, row, t)
            return _

        def queries(t, _):  # type: ignore[no-untyped-def]
            _write_d_queries(static, given, results, scratch, row, t)
            return _

        def keys(t, _):  # type: ignore[no-untyped-def]
            _write_d_keys(static, given, results, scratch, row, t)
            return _

        # Two at once fill each other's waits; the others gain nothing by it.
        _over_tiles(length, prepare, 2)
        for body in (scores, queries, keys):
            _over_tiles(length, body)
        return _

    jax.lax.fori_loop(0, qkv.shape[0], one_row, 0)


def _write_d_scores(static, given, scratch, first, row, t):  # type: ignore[no-untyped-def]
    """Write probabilities and gradients of scores for a tile of queries and all keys."""
    here, qkv = _place(t), given.qkv
    seen = scratch.segments[...] == given.query_segments[row, :, here]
    q_TxW, g_WxT = _scaled(static, qkv, row, here), scratch.columns_gradient[:, here]
    # The mean of the gradients of a query's probabilities is its output times the gradient.
    means = g_WxT.astype(jnp.float32) * given.out[row, here, :].T.astype(jnp.float32)
    for head, lanes in heads(static.head_width):
        scores = _scores(given.keys_of, qkv, row, jnp.where(lanes, q_TxW, 0), t)
        scores += scratch.skewed[head, :, here] - given.sums[row, 0, head : head + 1, here]
        raised = jnp.exp(jnp.where(seen, scores, MASKED))
        keep = _keep(static, given.seed, first, (row, head, t), raised.shape)
        factor = 1 / (1 - static.rate)
        d_raised = product(qkv[row, :, VALUES], alone(static, g_WxT, head), 1, 0)
        mean = jnp.sum(means[of_head(static, head)], axis=0, keepdims=True)
        d_scores = raised * (drop(d_raised, keep, factor) - mean)
        scratch.d_scores[head, :, here] = d_scores.astype(qkv.dtype)
        scratch.dropped[head, :, here] = drop(raised, keep, factor).astype(qkv.dtype)


def _write_d_queries(static, given, results, scratch, row, t):  # type: ignore[no-untyped-def]
    """Write the gradients of a tile of queries, and add to those of the keys of distances."""
    dtype = given.qkv.dtype
    here, distances = _place(t), _distances(given.qkv.shape[1], t)
    q_WxT_back = product(scratch.columns_q[:, here], _opposite(dtype), 1, 0).astype(dtype)
    content, relative = [], []
    for head, _lanes in heads(static.head_width):
        own, d_LxT = of_head(static, head), scratch.d_scores[head, :, here]
        content.append(product(scratch.columns_k[own], d_LxT, 1, 0))
        d_TxM = _unskewed(product(_opposite(dtype), d_LxT, 1, 1)).astype(dtype)
        results.keys_of[own, distances] += product(q_WxT_back[own], d_TxM, 1, 0)
        relative.append(product(given.keys_back[own, distances], d_TxM, 1, 1))
    d_q = jnp.concatenate(content, axis=0).T + _rows_of(relative, dtype)
    # The scores were scaled, so that the gradient of the queries needs the same factor.
    results.qkv[row, here, QUERIES] = (d_q * static.scale).astype(dtype)


def _write_d_keys(static, given, results, scratch, row, t):  # type: ignore[no-untyped-def]
    """Write the gradients of a tile of keys and values, and add to those of distances' queries."""
    dtype = given.qkv.dtype
    here, distances = _place(t), _distances(given.qkv.shape[1], t)
    k_WxT_back = product(scratch.columns_k[:, here], _opposite(dtype), 1, 0).astype(dtype)
    content, values, relative = [], [], []
    for head, _lanes in heads(static.head_width):
        own, d_TxL = of_head(static, head), scratch.d_scores[head, here, :]
        content.append(product(scratch.columns_q[own], d_TxL, 1, 1))
        dropped_TxL = scratch.dropped[head, here, :]
        values.append(product(scratch.columns_gradient[own], dropped_TxL, 1, 1))
        d_TxM = _unskewed(product(_opposite(dtype), d_TxL, 1, 0)).astype(dtype)
        results.queries_of[own, distances] += product(k_WxT_back[own], d_TxM, 1, 0)
        relative.append(product(given.queries_back[own, distances], d_TxM, 1, 1))
    d_k = jnp.concatenate(content, axis=0).T + _rows_of(relative, dtype)
    results.qkv[row, here, KEYS] = d_k.astype(dtype)
    results.qkv[row, here, VALUES] = jnp.concatenate(values, axis=0).astype(dtype).T


def _first(static: Static, qkv: Any) -> tuple[Array, Array]:
    """Return the numbers on this device of the block's first row and first head."""
    return pl.program_id(1) * qkv.shape[0], pl.program_id(0) * (LANES // static.head_width)


def _over_tiles(length: int, body: Any, at_once: int = 1) -> None:
    jax.lax.fori_loop(0, length // LANES, body, 0, unroll=at_once)


def _place(t: Any) -> Any:
    """Return the place of tile `t` in a row."""
    return pl.ds(pl.multiple_of(t * LANES, LANES), LANES)


def _distances(length: int, t: Any) -> Any:
    """Return the place in a table of the L + 128 distances that tile `t` meets."""
    return pl.ds(pl.multiple_of(length - LANES - t * LANES, LANES), length + LANES)


def _scaled(static: Static, qkv: Any, row: Any, here: Any) -> Array:
    return qkv[row, here, QUERIES] * static.scale


def _write_segments(key_segments, segments, row, here):  # type: ignore[no-untyped-def]
    """Write the segments of a tile's keys: 128 numbers along lanes become rows of equal numbers."""
    numbers = key_segments[row, :, here].astype(jnp.float32)
    segments[here, :] = jnp.broadcast_to(numbers, (LANES, LANES)).T.astype(jnp.int32)


def _skew_keys(static, queries_of, qkv, skewed, row, t):  # type: ignore[no-untyped-def]
    """Write what the keys of tile `t` score with the distances of all queries."""
    here, length = _place(t), qkv.shape[1]
    k_TxW = qkv[row, here, KEYS]
    for head, lanes in heads(static.head_width):
        vectors = queries_of[:, _distances(length, t)]
        skewed[head, here, :] = _skewed(product(jnp.where(lanes, k_TxW, 0), vectors, 1, 0))


def _scores(keys_of, qkv, row, q_TxW, t):  # type: ignore[no-untyped-def]
    """Return what the queries of tile `t` score with all keys and with their distances, [L, T]."""
    length = qkv.shape[1]
    relative = _skewed(product(q_TxW, keys_of[:, _distances(length, t)], 1, 0))
    return (relative + product(q_TxW, qkv[row, :, KEYS], 1, 1)).T


def _skewed(x_TxM: Array) -> Array:
    """Return element [r, c - r + 128] at [r, c], [T, L]."""
    width = x_TxM.shape[1]
    # Turned by a multiple of 128 and the row's number: a v5e turns the lanes of a register by fewer
    # than 128.
    return pltpu.roll(x_TxM, width - LANES, 1, stride=1, stride_axis=0)[:, : width - LANES]


def _unskewed(x_TxL: Array) -> Array:
    """Undo `_skewed` of rows in the opposite order, [T, M]; the elements around are 0.

    They are one column further to the left than those that `_skewed` takes.
    """
    padded = jnp.concatenate([x_TxL, jnp.zeros((LANES, LANES), x_TxL.dtype)], axis=1)
    return pltpu.roll(padded, 0, 1, stride=1, stride_axis=0)


def _opposite(dtype: Any) -> Array:
    """Return the matrix [T, T] that puts 128 rows, or columns, in the opposite order."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1))
    return jnp.where(row + column == LANES - 1, 1, 0).astype(dtype)


def _rows_of(columns: list[Array], dtype: Any) -> Array:
    """Return the rows [T, W] of float32 columns that are in the opposite order."""
    x_WxT = jnp.concatenate(columns, axis=0)
    high = x_WxT.astype(dtype)
    rows = product(_opposite(dtype), high, 1, 1)
    if dtype == jnp.float32:
        return rows
    # What the first rounding leaves, so that 16 bits are exact.
    low = (x_WxT - high.astype(jnp.float32)).astype(dtype)
    return rows + product(_opposite(dtype), low, 1, 1)


def _keep(static, seed, first, place, shape):  # type: ignore[no-untyped-def]
    """Return the mask of a tile's probabilities, [L, T]; `place` is (row, head, tile)."""
    row, head, t = place
    key, query = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    query += t * LANES
    return score_mask(seed, first[0] + row, first[1] + head, query, key, shape[0], static.rate)
