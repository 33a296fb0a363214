"""What the kernels of `tpu_long_attention` compute for one block of queries.

`qkv` has queries, keys and values of the block's heads side by side, 128 lanes each.
A tile of scores has keys along its first axis and queries along the second. Arrays whose names have
`columns` are transposed: [128 lanes, tokens]. `T` is the number of queries in a tile, `M` that of
keys, `W` the 128 lanes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from bertjax.model.kernels.tpu_attention import LANES, MASKED, product
from bertjax.model.kernels.tpu_long_rows import (
    KEYS,
    QUERIES,
    VALUES,
    Static,
    Tiling,
    alone,
    columns_of,
    of_head,
    over_rows,
    place,
    prepare,
    rotated,
    rotated_queries,
    transpose_rows,
    write_segments,
)

# Not less than the largest score of a query that sees a key, and far above MASKED. A query that
# sees none gets probabilities exp(MASKED - FLOOR), which are 0.
FLOOR = -1e30


def forward_body(  # type: ignore[no-untyped-def]
    query_segments, key_segments, angles, qkv, out, sums, rows_k, rows_v, columns_v, segments,
    *, static, cut
):  # fmt: skip
    # Not read in the functions below: Pallas's interpreter does not find it there.
    group, step = pl.program_id(1), pl.program_id(2)

    @pl.when((group == 0) & (step == 0))
    def _():  # type: ignore[no-untyped-def]
        write_segments(cut, key_segments, segments)

    @pl.when(step == 0)
    def _():  # type: ignore[no-untyped-def]
        prepare(static, cut, (angles, qkv), (rows_k, rows_v))
        transpose_rows(rows_v, columns_v)

    def tile(j, _):  # type: ignore[no-untyped-def]
        at, rows = _places(cut, step, j)
        q_WxT = rotated_queries(static, angles, qkv, rows)
        seen_by = query_segments[0, :, at]

        def keys(n, states):  # type: ignore[no-untyped-def]
            here = _keys(cut, rows, n)
            seen = _seen(static, cut, seen_by, segments[here, :], n)
            k_MxW, new = rows_k[here, :], []
            for head, (largest, total, mixed) in enumerate(states):
                scores = product(k_MxW, alone(static, q_WxT, head), 1, 0)
                scores = jnp.where(seen, scores, MASKED)
                higher = jnp.maximum(largest, jnp.max(scores, axis=0, keepdims=True))
                raised, shrink = jnp.exp(scores - higher), jnp.exp(largest - higher)
                values = columns_v[of_head(static, head), here]
                added = product(values, raised.astype(qkv.dtype), 1, 0)
                summed = jnp.sum(raised, axis=0, keepdims=True)
                new.append((higher, shrink * total + summed, shrink * mixed + added))
            return tuple(new)

        state = (
            jnp.full((1, cut.queries), FLOOR, jnp.float32),
            jnp.zeros((1, cut.queries), jnp.float32),
            jnp.zeros((static.head_width, cut.queries), jnp.float32),
        )
        states = _over_tiles(cut.key_tiles, keys, (state,) * (LANES // static.head_width))
        parts = []
        for head, (largest, total, mixed) in enumerate(states):
            # Not 0, which a query that sees no key has.
            total = jnp.maximum(total, 1e-30)
            parts.append(mixed * (1 / total))
            sums[0, 0, head : head + 1, at] = largest + jnp.log(total)
        out[0, at, :] = jnp.concatenate(parts, axis=0).astype(out.dtype).T
        return _

    _over_queries(cut, tile)


def backward_body(  # type: ignore[no-untyped-def]
    query_segments, key_segments, angles, qkv, out, gradient, sums, d_qkv,
    rows_k, rows_v, columns_k, segments, columns_dk, columns_dv, *, static, cut
):  # fmt: skip
    # Not read in the functions below: Pallas's interpreter does not find it there.
    group, step, steps = pl.program_id(1), pl.program_id(2), pl.num_programs(2)

    @pl.when((group == 0) & (step == 0))
    def _():  # type: ignore[no-untyped-def]
        write_segments(cut, key_segments, segments)

    @pl.when(step == 0)
    def _():  # type: ignore[no-untyped-def]
        prepare(static, cut, (angles, qkv), (rows_k, rows_v))
        transpose_rows(rows_k, columns_k, columns_dk, columns_dv)

    def tile(j, _):  # type: ignore[no-untyped-def]
        at, rows = _places(cut, step, j)
        q_WxT, g_WxT = rotated_queries(static, angles, qkv, rows), gradient[0, at, :].T
        # The mean of the gradients of a query's probabilities is its output times the gradient.
        means = g_WxT.astype(jnp.float32) * out[0, at, :].T.astype(jnp.float32)
        seen_by = query_segments[0, :, at]

        def keys(n, sums_of_dq):  # type: ignore[no-untyped-def]
            here = _keys(cut, rows, n)
            seen = _seen(static, cut, seen_by, segments[here, :], n)
            k_MxW, v_MxW, new = rows_k[here, :], rows_v[here, :], []
            for head, summed in enumerate(sums_of_dq):
                own = of_head(static, head)
                q_h, g_h = (alone(static, x, head) for x in (q_WxT, g_WxT))
                scores = product(k_MxW, q_h, 1, 0) - sums[0, 0, head : head + 1, at]
                raised = jnp.exp(jnp.where(seen, scores, MASKED))
                mean = jnp.sum(means[own], axis=0, keepdims=True)
                d_scores = (raised * (product(v_MxW, g_h, 1, 0) - mean)).astype(qkv.dtype)
                columns_dv[own, here] += product(g_WxT[own], raised.astype(qkv.dtype), 1, 1)
                columns_dk[own, here] += product(q_WxT[own], d_scores, 1, 1)
                new.append(summed + product(columns_k[own, here], d_scores, 1, 0))
            return tuple(new)

        zeros = jnp.zeros((static.head_width, cut.queries), jnp.float32)
        parts = _over_tiles(cut.key_tiles, keys, (zeros,) * (LANES // static.head_width))
        # The scores were scaled, so that the gradient of the queries needs the same factor.
        d_queries = jnp.concatenate(parts, axis=0) * static.head_width**-0.5
        d_queries = rotated(static, d_queries, angles, rows, -1)
        d_qkv[0, rows, QUERIES] = d_queries.astype(d_qkv.dtype).T
        return _

    _over_queries(cut, tile)

    @pl.when(step == steps - 1)
    def _():  # type: ignore[no-untyped-def]
        def rows(t, _):  # type: ignore[no-untyped-def]
            here = place(t)
            d_keys = rotated(static, columns_of(columns_dk, cut, t), angles, here, -1)
            d_qkv[0, here, KEYS] = d_keys.astype(d_qkv.dtype).T
            d_qkv[0, here, VALUES] = columns_of(columns_dv, cut, t).astype(d_qkv.dtype).T
            return _

        over_rows(qkv.shape[1] // LANES, rows)


def _over_queries(cut: Tiling, body: Any) -> None:
    """Run `body(j, 0)` for each tile of queries of a block."""
    count = cut.block // cut.queries
    if cut.padding:
        over_rows(count, body)
    else:
        jax.lax.fori_loop(0, count, body, 0)


def _over_tiles(count: int, body: Any, states: Any) -> Any:
    return body(0, states) if count == 1 else jax.lax.fori_loop(0, count, body, states)


def _places(cut: Tiling, step: Any, j: Any) -> tuple[Any, Any]:
    """Return the place of tile `j` of queries in its block, and its place in the row."""
    first = pl.multiple_of(j * cut.queries, LANES)
    return pl.ds(first, cut.queries), pl.ds(
        pl.multiple_of(step * cut.block + first, LANES), cut.queries
    )


def _keys(cut: Tiling, queries: Any, n: Any) -> Any:
    """Return the place in the padded row of tile `n` of the keys that a tile of queries meets.

    In a window the first one is as far before the first query as the row is padded.
    """
    first = queries.start if cut.padding else 0
    return pl.ds(pl.multiple_of(first + n * cut.keys, LANES), cut.keys)


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
