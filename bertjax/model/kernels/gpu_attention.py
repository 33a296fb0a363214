"""Attention as GPU kernels, forward and backward, with dropout of the probabilities inside.

The algorithm is FlashAttention 2's (arXiv 2307.08691): a program has a block of queries and goes
over the keys with a running softmax. Backward, one kernel has a block of queries and goes over the
keys, for dq, and one a block of keys and goes over the queries, for dk and dv; so no two programs
add to the same place and sums are always the same. Scores, softmax and dropout are float32, the
scores in powers of two; products take the inputs' type and add up in float32.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from bertjax.model.random_bits import drop, kept_scores

BLOCK = 64
HEAD_WIDTHS = (16, 32, 64, 128)
LEAST = float(jnp.finfo(jnp.float32).min)


class Static(NamedTuple):
    """What a program is compiled for; `window`: keys are seen up to half of it away, 0: all."""

    rate: float
    window: int
    interpret: bool


def fits(length: int, head_width: int) -> bool:
    """Whether the kernels take rows of this length, and heads of this width."""
    return length % BLOCK == 0 and head_width in HEAD_WIDTHS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def gpu_attention(
    static: Static, q: Array, k: Array, v: Array, segments: tuple[Array, Array], seed: Array
) -> Array:
    """Attention of q, k, v [B, L, H, K]; see `attention.attention`.

    `segments` are the queries' and the keys', [B, L] int32: a query sees the keys of its own
    number. `seed` is as `random_bits.kept_scores` has it.
    """
    return _forward(static, q, k, v, segments, seed)[0]


def _forward(
    static: Static, q: Array, k: Array, v: Array, segments: Any, seed: Array
) -> tuple[Array, Any]:
    output, largest, total = _call(
        _forward_body, static, seed, segments, [q], [k, v], [], like=[q], statistics_out=2
    )
    return output, (q, k, v, segments, seed, output, largest, total)


def _backward(static: Static, residuals: Any, gradient: Array) -> Any:
    q, k, v, segments, seed, output, largest, total = residuals
    # What a query's d_probabilities are on average, dropout included: its output by its gradient.
    mean = jnp.einsum("blhk,blhk->bhl", output, gradient, preferred_element_type=jnp.float32)
    statistics = [largest, 1 / total, mean]
    queries = [q, gradient]
    (dq,) = _call(_dq_body, static, seed, segments, queries, [k, v], statistics, like=[q])
    dk, dv = _call(
        _dk_dv_body, static, seed, segments, queries, [k, v], statistics, like=[k, v], by_keys=True
    )
    return dq, dk, dv, (None, None), None


gpu_attention.defvjp(_forward, _backward)


def _call(
    body: Any,
    static: Static,
    seed: Array,
    segments: tuple[Array, Array],
    queries: list[Array],
    keys: list[Array],
    statistics: list[Array],
    *,
    like: list[Array],
    statistics_out: int = 0,
    by_keys: bool = False,
) -> Any:
    """Run `body` for each row, head and block of queries, or of keys: it gets the other side whole."""
    batch, length, heads, width = queries[0].shape

    def specs(
        blocked: bool, wide: int, narrow: int
    ) -> tuple[list[pl.BlockSpec], list[pl.BlockSpec], pl.BlockSpec]:
        size, at = (BLOCK, lambda i: i) if blocked else (length, lambda i: 0)
        return (
            [pl.BlockSpec((None, size, None, width), lambda i, b, h: (b, at(i), h, 0))] * wide,
            [pl.BlockSpec((None, None, size), lambda i, b, h: (b, h, at(i)))] * narrow,
            pl.BlockSpec((None, size), lambda i, b, h: (b, at(i))),
        )

    of_queries, of_statistics, query_segments = specs(not by_keys, len(queries), len(statistics))
    of_keys, _, key_segments = specs(by_keys, len(keys), 0)
    outputs, more, _ = specs(True, len(like), statistics_out)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like]
    shapes += [jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)] * statistics_out
    return pl.pallas_call(
        partial(body, static=static),
        grid=(length // BLOCK, batch, heads),
        in_specs=[
            pl.no_block_spec,
            query_segments,
            key_segments,
            *of_queries,
            *of_keys,
            *of_statistics,
        ],
        out_specs=[*outputs, *more],
        out_shape=shapes,
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=static.interpret,
        name=f"attention{body.__name__.removesuffix('_body')}",
    )(seed, *segments, *queries, *keys, *statistics)


def _forward_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, k, v, out, largest, total, *, static
):
    queries, (own, stays) = q[...], _program(seed, k.shape[0], static)

    def add(block, sums):  # type: ignore[no-untyped-def]
        output, top, whole = sums
        keys = pl.ds(block * BLOCK, BLOCK)
        place = _place(own, block)
        scores, _ = _scores(
            queries, k[keys, :], query_segments[...], key_segments[keys], place, static
        )
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        raised, fade = jnp.exp2(scores - new_top[:, None]), jnp.exp2(top - new_top)
        dropped = drop(raised, stays(place), 1 / (1 - static.rate)).astype(v.dtype)
        output = output * fade[:, None] + triton.dot(dropped, v[keys, :])
        return output, new_top, whole * fade + jnp.sum(raised, axis=1)

    start = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(BLOCK, LEAST, jnp.float32),
        jnp.zeros(BLOCK, jnp.float32),
    )
    output, top, whole = jax.lax.fori_loop(*_blocks(own, k.shape[0], static), add, start)
    out[...] = (output / whole[:, None]).astype(out.dtype)
    largest[...], total[...] = top, whole


def _dq_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, gradient, k, v, largest, share, mean, dq, *, static
):
    here = (q[...], gradient[...], query_segments[...], largest[...], share[...], mean[...])
    own, stays = _program(seed, k.shape[0], static)

    def add(block, summed):  # type: ignore[no-untyped-def]
        keys = pl.ds(block * BLOCK, BLOCK)
        there = (k[keys, :], v[keys, :], key_segments[keys])
        d_scores, _ = _d_scores(here, there, _place(own, block), stays, static)
        return summed + triton.dot(d_scores, there[0])

    summed = jax.lax.fori_loop(
        *_blocks(own, k.shape[0], static), add, jnp.zeros(q.shape, jnp.float32)
    )
    dq[...] = (summed * q.shape[1] ** -0.5).astype(dq.dtype)


def _dk_dv_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, gradient, k, v, largest, share, mean, dk, dv, *, static
):
    there = (k[...], v[...], key_segments[...])
    own, stays = _program(seed, q.shape[0], static)

    def add(block, sums):  # type: ignore[no-untyped-def]
        rows = pl.ds(block * BLOCK, BLOCK)
        here = (
            q[rows, :],
            gradient[rows, :],
            query_segments[rows],
            largest[rows],
            share[rows],
            mean[rows],
        )
        d_scores, dropped = _d_scores(here, there, _place(block, own), stays, static)
        parts = (
            triton.dot(d_scores, here[0], trans_a=True),
            triton.dot(dropped, here[1], trans_a=True),
        )
        return sums[0] + parts[0], sums[1] + parts[1]

    start = (jnp.zeros(k.shape, jnp.float32),) * 2
    sums = jax.lax.fori_loop(*_blocks(own, q.shape[0], static), add, start)
    dk[...] = (sums[0] * q.shape[1] ** -0.5).astype(dk.dtype)
    dv[...] = sums[1].astype(dv.dtype)


def _d_scores(here: Any, there: Any, place: Any, stays: Any, static: Static) -> tuple[Array, Array]:
    """Of a block of queries by a block of keys: the scores' gradient, and the probabilities after
    dropout.
    """
    q, gradient, query_segments, largest, share, mean = here
    k, v, key_segments = there
    scores, seen = _scores(q, k, query_segments, key_segments, place, static)
    probabilities = jnp.exp2(scores - largest[:, None]) * share[:, None]
    keep, scale = stays(place), 1 / (1 - static.rate)
    d_probabilities = drop(triton.dot(gradient, v, trans_b=True), keep, scale)
    d_scores = jnp.where(seen, probabilities * (d_probabilities - mean[:, None]), 0.0)
    return d_scores.astype(q.dtype), drop(probabilities, keep, scale).astype(q.dtype)


def _program(
    seed: Any, length: int, static: Static
) -> tuple[Array, Callable[[tuple[Array, Array]], Array | None]]:
    """The number of this program's block, and which probabilities of a block stay."""
    own, row, head = (pl.program_id(axis) for axis in range(3))

    def stays(place: tuple[Array, Array]) -> Array | None:
        return kept_scores(seed, row, head, *place, length, static.rate)

    return own, stays


def _blocks(own: Array, length: int, static: Static) -> tuple[Any, Any]:
    """From which block of the other side to which one, not included, a program's `own` has to do
    with.
    """
    if not static.window:
        return 0, length // BLOCK
    reach = -(-static.window // 2 // BLOCK)
    return jnp.maximum(own - reach, 0), jnp.minimum(own + reach + 1, length // BLOCK)


def _place(query_block: Any, key_block: Any) -> tuple[Array, Array]:
    """The numbers of a block's queries [BLOCK, 1] and keys [1, BLOCK] in their row."""
    count = jnp.arange(BLOCK, dtype=jnp.int32)
    return (query_block * BLOCK + count)[:, None], (key_block * BLOCK + count)[None, :]


def _scores(
    q: Array,
    k: Array,
    query_segments: Array,
    key_segments: Array,
    place: tuple[Array, Array],
    static: Static,
) -> tuple[Array, Array]:
    """Scores of a block by the logarithm to base 2, and which of them are seen."""
    seen = query_segments[:, None] == key_segments[None, :]
    if static.window:
        seen &= jnp.abs(place[0] - place[1]) <= static.window // 2
    scores = triton.dot(q, k, trans_b=True) * (q.shape[1] ** -0.5 * math.log2(math.e))
    return jnp.where(seen, scores, LEAST), seen
