"""What the kernels of `tpu_relative_attention` compute for one group of heads and some rows.

A tile of scores has keys along its first axis and queries along the second. The names of arrays are
those of `tpu_relative_rows`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bertjax.model.kernels.tpu_attention import MASKED, heads, product
from bertjax.model.kernels.tpu_long_bodies import FLOOR
from bertjax.model.kernels.tpu_long_rows import KEYS, QUERIES, VALUES, alone, of_head, place
from bertjax.model.kernels.tpu_relative_rows import (
    Static,
    distances_of,
    first_numbers,
    kept,
    opposite,
    over_tiles,
    rows_of,
    scaled,
    scores_of,
    skew_keys,
    unskewed,
    write_segments,
)
from bertjax.model.random_bits import drop


def forward_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, keys_of, queries_of, qkv, out, sums,
    segments, skewed, columns_v, *, static
):  # fmt: skip
    first = first_numbers(static, qkv)
    length = qkv.shape[1]

    def one_row(row, _):  # type: ignore[no-untyped-def]
        def prepare(t, _):  # type: ignore[no-untyped-def]
            here = place(t)
            write_segments(key_segments, segments, row, here)
            columns_v[:, here] = qkv[row, here, VALUES].T
            skew_keys(static, queries_of, qkv, skewed, row, t)
            return _

        # Two at once fill each other's waits.
        over_tiles(length, prepare, 2)

        def tile(t, _):  # type: ignore[no-untyped-def]
            here = place(t)
            seen = segments[...] == query_segments[row, :, here]
            q_TxW, parts = scaled(static, qkv, row, here), []
            for head, lanes in heads(static.head_width):
                scores = scores_of(keys_of, qkv, row, jnp.where(lanes, q_TxW, 0), t)
                scores = jnp.where(seen, scores + skewed[head, :, here], MASKED)
                largest = jnp.maximum(jnp.max(scores, axis=0, keepdims=True), FLOOR)
                raised = jnp.exp(scores - largest)
                # Not 0, which a query that sees no key has.
                total = jnp.maximum(jnp.sum(raised, axis=0, keepdims=True), 1e-30)
                keep = kept(static, seed, first, (row, head, t), raised.shape)
                dropped = drop(raised, keep, 1 / (1 - static.rate)).astype(qkv.dtype)
                parts.append(product(columns_v[of_head(static, head)], dropped, 1, 0) / total)
                sums[row, 0, head : head + 1, here] = largest + jnp.log(total)
            out[row, here, :] = jnp.concatenate(parts, axis=0).astype(out.dtype).T
            return _

        over_tiles(length, tile)
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
    """As `keys_of`, but one column further to the left: as `unskewed` moves gradients."""
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
    first = first_numbers(static, qkv)
    length = qkv.shape[1]

    @pl.when(pl.program_id(1) == 0)
    def _():  # type: ignore[no-untyped-def]
        results.keys_of[...] = jnp.zeros_like(results.keys_of)
        results.queries_of[...] = jnp.zeros_like(results.queries_of)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        def prepare(t, _):  # type: ignore[no-untyped-def]
            here = place(t)
            write_segments(given.key_segments, scratch.segments, row, here)
            scratch.columns_k[:, here] = qkv[row, here, KEYS].T
            scratch.columns_q[:, here] = scaled(static, qkv, row, here).T
            scratch.columns_gradient[:, here] = given.gradient[row, here, :].T
            skew_keys(static, given.queries_of, qkv, scratch.skewed, row, t)
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
        over_tiles(length, prepare, 2)
        for body in (scores, queries, keys):
            over_tiles(length, body)
        return _

    jax.lax.fori_loop(0, qkv.shape[0], one_row, 0)


def _write_d_scores(static, given, scratch, first, row, t):  # type: ignore[no-untyped-def]
    """Write probabilities and gradients of scores for a tile of queries and all keys."""
    here, qkv = place(t), given.qkv
    seen = scratch.segments[...] == given.query_segments[row, :, here]
    q_TxW, g_WxT = scaled(static, qkv, row, here), scratch.columns_gradient[:, here]
    # The mean of the gradients of a query's probabilities is its output times the gradient.
    means = g_WxT.astype(jnp.float32) * given.out[row, here, :].T.astype(jnp.float32)
    for head, lanes in heads(static.head_width):
        scores = scores_of(given.keys_of, qkv, row, jnp.where(lanes, q_TxW, 0), t)
        scores += scratch.skewed[head, :, here] - given.sums[row, 0, head : head + 1, here]
        raised = jnp.exp(jnp.where(seen, scores, MASKED))
        keep = kept(static, given.seed, first, (row, head, t), raised.shape)
        factor = 1 / (1 - static.rate)
        d_raised = product(qkv[row, :, VALUES], alone(static, g_WxT, head), 1, 0)
        mean = jnp.sum(means[of_head(static, head)], axis=0, keepdims=True)
        d_scores = raised * (drop(d_raised, keep, factor) - mean)
        scratch.d_scores[head, :, here] = d_scores.astype(qkv.dtype)
        scratch.dropped[head, :, here] = drop(raised, keep, factor).astype(qkv.dtype)


def _write_d_queries(static, given, results, scratch, row, t):  # type: ignore[no-untyped-def]
    """Write the gradients of a tile of queries, and add to those of the keys of distances."""
    dtype = given.qkv.dtype
    here, distances = place(t), distances_of(given.qkv.shape[1], t)
    q_WxT_back = product(scratch.columns_q[:, here], opposite(dtype), 1, 0).astype(dtype)
    content, relative = [], []
    for head, _lanes in heads(static.head_width):
        own, d_LxT = of_head(static, head), scratch.d_scores[head, :, here]
        content.append(product(scratch.columns_k[own], d_LxT, 1, 0))
        d_TxM = unskewed(product(opposite(dtype), d_LxT, 1, 1)).astype(dtype)
        results.keys_of[own, distances] += product(q_WxT_back[own], d_TxM, 1, 0)
        relative.append(product(given.keys_back[own, distances], d_TxM, 1, 1))
    d_q = jnp.concatenate(content, axis=0).T + rows_of(relative, dtype)
    # The scores were scaled, so that the gradient of the queries needs the same factor.
    results.qkv[row, here, QUERIES] = (d_q * static.scale).astype(dtype)


def _write_d_keys(static, given, results, scratch, row, t):  # type: ignore[no-untyped-def]
    """Write the gradients of a tile of keys and values, and add to those of distances' queries."""
    dtype = given.qkv.dtype
    here, distances = place(t), distances_of(given.qkv.shape[1], t)
    k_WxT_back = product(scratch.columns_k[:, here], opposite(dtype), 1, 0).astype(dtype)
    content, values, relative = [], [], []
    for head, _lanes in heads(static.head_width):
        own, d_TxL = of_head(static, head), scratch.d_scores[head, here, :]
        content.append(product(scratch.columns_q[own], d_TxL, 1, 1))
        dropped_TxL = scratch.dropped[head, here, :]
        values.append(product(scratch.columns_gradient[own], dropped_TxL, 1, 1))
        d_TxM = unskewed(product(opposite(dtype), d_TxL, 1, 0)).astype(dtype)
        results.queries_of[own, distances] += product(k_WxT_back[own], d_TxM, 1, 0)
        relative.append(product(given.queries_back[own, distances], d_TxM, 1, 1))
    d_k = jnp.concatenate(content, axis=0).T + rows_of(relative, dtype)
    results.qkv[row, here, KEYS] = d_k.astype(dtype)
    results.qkv[row, here, VALUES] = jnp.concatenate(values, axis=0).astype(dtype).T
