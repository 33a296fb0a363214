"""Attention as GPU kernels, forward and backward, with dropout of the probabilities inside.

The algorithm is that of FlashAttention-2 (arXiv 2307.08691). In the forward pass, each program has
a block of queries and loops over the keys with a running softmax. In the backward pass, one kernel
computes dq: each program has a block of queries and loops over the keys. Another kernel computes dk
and dv: each program has a block of keys and loops over the queries. No two programs add to the same
memory, so repeated runs give the same sums.

Scores, softmax and dropout are in float32. Softmax uses powers of two, because GPUs have an
instruction for them. Products have factors in the dtype of the inputs and sums in float32.
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

from bertjax.model.random_bits import drop, score_mask

BLOCK = 64  # number of queries, and of keys, in a block
HEAD_WIDTHS = (16, 32, 64, 128)  # Triton needs powers of two, and at least 16 in a product
# The score of a key that is not seen. With -inf, a query that sees no key would give NaN.
MASKED = float(jnp.finfo(jnp.float32).min)


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    rate: float
    """Dropout rate."""
    window: int
    """A query sees keys at most `window` / 2 positions away; 0 means all keys."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no GPU."""


class _Residuals(NamedTuple):
    """Arrays kept for the backward pass, which recomputes the scores."""

    q: Array
    k: Array
    v: Array
    segments: tuple[Array, Array]
    seed: Array
    output: Array
    largest: Array
    """The largest score of each query, [B, H, L] float32."""
    total: Array
    """For each query the sum of 2 ** (score - largest score), [B, H, L] float32."""


class _Queries(NamedTuple):
    """A block of queries in the backward pass: two arrays [BLOCK, K], the rest [BLOCK]."""

    q: Array
    gradient: Array
    segments: Array
    largest: Array
    """The largest score of each query."""
    share: Array
    """1 / `_Residuals.total` of each query."""
    mean: Array
    """Mean gradient of each query's probabilities, see `_backward`."""


class _Keys(NamedTuple):
    """A block of keys: two arrays [BLOCK, K], and segments [BLOCK]."""

    k: Array
    v: Array
    segments: Array


_Positions = tuple[Array, Array]
"""The positions of a block's queries [BLOCK, 1] and keys [1, BLOCK] in their row."""
_KeepOf = Callable[[_Positions], Array | None]
"""Function that returns the mask of the probabilities that dropout keeps."""


def fits(length: int, head_width: int) -> bool:
    """Return True if the kernels support rows of this length and heads of this width."""
    # Whole blocks only, so that no load or store needs a check of bounds.
    return length % BLOCK == 0 and head_width in HEAD_WIDTHS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def gpu_attention(
    static: Static, q: Array, k: Array, v: Array, segments: tuple[Array, Array], seed: Array
) -> Array:
    """Return the attention of q, k, v [B, L, H, K]; see `attention.attention`.

    `segments` are the segment numbers of queries and keys, int32 [B, L]: a query sees only keys
    with its own number. `seed` is that of `random_bits.score_mask`.
    """
    return _forward(static, q, k, v, segments, seed)[0]


def _forward(
    static: Static, q: Array, k: Array, v: Array, segments: tuple[Array, Array], seed: Array
) -> tuple[Array, _Residuals]:
    output, largest, total = _call(
        _forward_body, static, seed, segments, [q], [k, v], [], like=[q], statistics_out=2
    )
    return output, _Residuals(q, k, v, segments, seed, output, largest, total)


def _backward(static: Static, residuals: _Residuals, gradient: Array) -> Any:
    q, k, v, segments, seed, output, largest, total = residuals
    # The mean gradient of a query's probabilities, weighted by the probabilities after dropout. It
    # equals the sum of output times gradient of the output (D in FlashAttention-2's algorithm 2).
    mean = jnp.einsum("blhk,blhk->bhl", output, gradient, preferred_element_type=jnp.float32)
    statistics = [largest, 1 / total, mean]
    queries = [q, gradient]
    (dq,) = _call(_dq_body, static, seed, segments, queries, [k, v], statistics, like=[q])
    dk, dv = _call(
        _dk_dv_body, static, seed, segments, queries, [k, v], statistics, like=[k, v], by_keys=True
    )
    # Segments and seed are integers, which have no gradient.
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
    """Run `body` for each row, head and block of queries; with `by_keys`, blocks of keys.

    `body` gets its own block, and the other side (keys or queries) completely. The outputs have the
    shapes of `like`; after them come `statistics_out` arrays, float32 [B, H, L].
    """
    batch, length, heads, width = queries[0].shape

    def specs(
        blocked: bool, wide: int, narrow: int
    ) -> tuple[list[pl.BlockSpec], list[pl.BlockSpec], pl.BlockSpec]:
        """Return block specs for `wide` arrays [B, L, H, K], `narrow` arrays [B, H, L], one [B, L].

        The axes of the grid are (block, row, head).
        """
        size = BLOCK if blocked else length

        def part(block: Any) -> Any:
            return block if blocked else 0

        vectors = pl.BlockSpec((None, size, None, width), lambda i, b, h: (b, part(i), h, 0))
        numbers = pl.BlockSpec((None, None, size), lambda i, b, h: (b, h, part(i)))
        segments = pl.BlockSpec((None, size), lambda i, b, h: (b, part(i)))
        return [vectors] * wide, [numbers] * narrow, segments

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
    queries = q[...]
    own, keep_of = _program(seed, k.shape[0], static)

    def add(block, sums):  # type: ignore[no-untyped-def]
        output, top, total_raised = sums
        keys = pl.ds(block * BLOCK, BLOCK)
        positions = _positions(own, block)
        scores, _ = _scores(
            queries, k[keys, :], query_segments[...], key_segments[keys], positions, static
        )
        # Running softmax: the sums so far are rescaled to the new largest score.
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        raised, fade = jnp.exp2(scores - new_top[:, None]), jnp.exp2(top - new_top)
        dropped = drop(raised, keep_of(positions), 1 / (1 - static.rate)).astype(v.dtype)
        output = output * fade[:, None] + triton.dot(dropped, v[keys, :])
        # The sum is taken before dropout, which falls on the probabilities.
        return output, new_top, total_raised * fade + jnp.sum(raised, axis=1)

    start = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(BLOCK, MASKED, jnp.float32),
        jnp.zeros(BLOCK, jnp.float32),
    )
    output, top, total_raised = jax.lax.fori_loop(*_blocks(own, k.shape[0], static), add, start)
    out[...] = (output / total_raised[:, None]).astype(out.dtype)
    largest[...], total[...] = top, total_raised


def _dq_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, gradient, k, v, largest, share, mean, dq, *, static
):
    here = _Queries(q[...], gradient[...], query_segments[...], largest[...], share[...], mean[...])
    own, keep_of = _program(seed, k.shape[0], static)

    def add(block, summed):  # type: ignore[no-untyped-def]
        keys = pl.ds(block * BLOCK, BLOCK)
        there = _Keys(k[keys, :], v[keys, :], key_segments[keys])
        d_scores, _ = _d_scores(here, there, _positions(own, block), keep_of, static)
        return summed + triton.dot(d_scores, there.k)

    first, end = _blocks(own, k.shape[0], static)
    summed = jax.lax.fori_loop(first, end, add, jnp.zeros(q.shape, jnp.float32))
    # The factor of the scores without log2(e): the gradients are those of the natural exponent.
    dq[...] = (summed * q.shape[1] ** -0.5).astype(dq.dtype)


def _dk_dv_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, gradient, k, v, largest, share, mean, dk, dv, *, static
):
    there = _Keys(k[...], v[...], key_segments[...])
    own, keep_of = _program(seed, q.shape[0], static)

    def add(block, sums):  # type: ignore[no-untyped-def]
        queries = pl.ds(block * BLOCK, BLOCK)
        here = _Queries(
            q[queries, :],
            gradient[queries, :],
            query_segments[queries],
            largest[queries],
            share[queries],
            mean[queries],
        )
        d_scores, dropped = _d_scores(here, there, _positions(block, own), keep_of, static)
        parts = (
            triton.dot(d_scores, here.q, trans_a=True),
            triton.dot(dropped, here.gradient, trans_a=True),
        )
        return sums[0] + parts[0], sums[1] + parts[1]

    start = (jnp.zeros(k.shape, jnp.float32),) * 2
    sums = jax.lax.fori_loop(*_blocks(own, q.shape[0], static), add, start)
    dk[...] = (sums[0] * q.shape[1] ** -0.5).astype(dk.dtype)
    dv[...] = sums[1].astype(dv.dtype)


def _d_scores(
    here: _Queries, there: _Keys, positions: _Positions, keep_of: _KeepOf, static: Static
) -> tuple[Array, Array]:
    """Return the gradient of a block's scores, and the block's probabilities after dropout."""
    scores, seen = _scores(here.q, there.k, here.segments, there.segments, positions, static)
    probabilities = jnp.exp2(scores - here.largest[:, None]) * here.share[:, None]
    keep, scale = keep_of(positions), 1 / (1 - static.rate)
    d_probabilities = drop(triton.dot(here.gradient, there.v, trans_b=True), keep, scale)
    # A masked score is a constant. This matters where a query sees no key: there the masked ones
    # have probabilities above 0.
    d_scores = jnp.where(seen, probabilities * (d_probabilities - here.mean[:, None]), 0.0)
    return d_scores.astype(here.q.dtype), drop(probabilities, keep, scale).astype(here.q.dtype)


def _program(seed: Any, length: int, static: Static) -> tuple[Array, _KeepOf]:
    """Return the number of this program's block, and the function that makes dropout masks."""
    own, row, head = (pl.program_id(axis) for axis in range(3))

    def keep_of(positions: _Positions) -> Array | None:
        return score_mask(seed, row, head, *positions, length, static.rate)

    return own, keep_of


def _blocks(own: Array, length: int, static: Static) -> tuple[Any, Any]:
    """Return the range (first, end) of the other side's blocks that block `own` attends to."""
    if not static.window:
        return 0, length // BLOCK
    reach = -(-static.window // 2 // BLOCK)
    return jnp.maximum(own - reach, 0), jnp.minimum(own + reach + 1, length // BLOCK)


def _positions(query_block: Any, key_block: Any) -> _Positions:
    count = jnp.arange(BLOCK, dtype=jnp.int32)
    return (query_block * BLOCK + count)[:, None], (key_block * BLOCK + count)[None, :]


def _scores(
    q: Array,
    k: Array,
    query_segments: Array,
    key_segments: Array,
    positions: _Positions,
    static: Static,
) -> tuple[Array, Array]:
    """Return a block's scores, scaled for powers of two, and a mask that is True where seen."""
    seen = query_segments[:, None] == key_segments[None, :]
    if static.window:
        seen &= jnp.abs(positions[0] - positions[1]) <= static.window // 2
    # exp(x) = 2 ** (x log2(e))
    scores = triton.dot(q, k, trans_b=True) * (q.shape[1] ** -0.5 * math.log2(math.e))
    return jnp.where(seen, scores, MASKED), seen
