"""Attention over whole rows in one TPU kernel, forward and backward, with dropout inside.

BERT's rows are short, so all scores of one row and head fit the memory of a core. Therefore no
running softmax is needed, and only queries, keys, values and their gradients are read from and
written to main memory.

A block has some rows and 128 lanes; the lanes hold 128 / K heads side by side. To compute the
product of one head, the lanes of the other heads are set to zero. This costs no time on the matrix
unit, because the 64 lanes of a head alone would use only half of it. Scores, softmax and dropout
are in float32. Products have factors in the dtype of the inputs and sums in float32.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.random_bits import drop, score_mask

LANES = 128  # lanes of a vector register: the last axis of a block is a multiple of it
MAX_TOKENS = 1024  # number of rows in a block times their length
MAX_LENGTH = 512  # the scores of longer rows do not fit the memory of a core
# The score of a key that is not seen. With -inf, a query that sees no key would give NaN.
MASKED = float(jnp.finfo(jnp.float32).min)
# Vector operations per score, for the compiler's cost estimates. The estimates count operations of
# the matrix unit, 32 of which take as long as one vector operation. With the factor 32 they include
# the time of softmax and dropout.
VECTOR_OPERATIONS = {"forward": 6, "backward": 12, "dropout": 20}
MATRIX_PER_VECTOR = 32
# Of a v5e's matrix units, in which the compiler's cost estimates are stated.
FLOPS_PER_CYCLE = 4 * 2 * 128**2


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    head_width: int
    rate: float
    """Dropout rate."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no TPU."""


class _Residuals(NamedTuple):
    """Arrays kept for the backward pass, which recomputes the scores."""

    q: Array
    k: Array
    v: Array
    segments: tuple[Array, Array]
    seed: Array


def fits(length: int, num_heads: int, head_width: int) -> bool:
    """Return True if the kernel supports rows of this length and `num_heads` heads per device."""
    return (
        length % LANES == 0
        and length <= MAX_LENGTH
        and LANES % head_width == 0
        and num_heads * head_width % LANES == 0
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tpu_attention(
    static: Static,
    q: Array,
    k: Array,
    v: Array,
    segments: tuple[Array, Array],
    seed: Array,
) -> Array:
    """Return the attention of q, k, v [B, L, H * K]; see `attention.attention`.

    `segments` are the segment numbers of queries and keys, int32 [B, L]: a query sees only keys
    with its own number. `seed` is that of `random_bits.score_mask`.
    """
    return _forward(static, q, k, v, segments, seed)[0]


def _forward(
    static: Static, q: Array, k: Array, v: Array, segments: tuple[Array, Array], seed: Array
) -> tuple[Array, _Residuals]:
    output = _call("forward", static, (q, k, v), segments, seed, 1)[0]
    return output, _Residuals(q, k, v, segments, seed)


def _backward(static: Static, residuals: _Residuals, gradient: Array) -> Any:
    q, k, v, segments, seed = residuals
    dq, dk, dv = _call("backward", static, (q, k, v, gradient), segments, seed, 3)
    # Segments and seed are integers, which have no gradient.
    return dq, dk, dv, (None, None), None


tpu_attention.defvjp(_forward, _backward)


def rows_of_block(batch: int, length: int) -> int:
    """Return how many rows of this length a block has: a divisor of the batch."""
    most = min(batch, max(1, MAX_TOKENS // length))
    return next(n for n in range(most, 0, -1) if batch % n == 0)


def _call(
    direction: str, static: Static, arrays: Any, segments: Any, seed: Array, outputs: int
) -> Any:
    """Run a kernel over blocks of rows and heads; `arrays` are [B, L, H * K]."""
    head_width, rate, interpret = static
    q = arrays[0]
    batch, length, width = q.shape
    block_rows = rows_of_block(batch, length)
    # A TPU's blocks have last axes of a multiple of 8 by a multiple of 128, or whole ones
    # (docs.jax.dev, Pallas TPU). So segments get an axis of 1, which is whole.
    block = pl.BlockSpec((block_rows, length, LANES), lambda b, g: (b, 0, g))
    segment = pl.BlockSpec((block_rows, 1, length), lambda b, g: (b, 0, 0))
    body: Any = _forward_body
    products = 2  # scores and output
    if direction == "backward":
        body = _backward_body
        products = 5  # recomputed scores, and the gradients of probabilities, q, k and v
    operations = VECTOR_OPERATIONS[direction]
    if rate:
        operations += VECTOR_OPERATIONS["dropout"]
    scores = batch * (width // head_width) * length * length
    cost = pl.CostEstimate(
        flops=scores * (products * 2 * LANES + operations * MATRIX_PER_VECTOR),
        transcendentals=scores,
        bytes_accessed=(len(arrays) + outputs) * q.size * q.dtype.itemsize,
    )
    return pl.pallas_call(
        partial(body, rate=rate, head_width=head_width),
        grid=(batch // block_rows, width // LANES),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), segment, segment] + [block] * len(arrays),
        out_specs=[block] * outputs,
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype)] * outputs,
        # Parallel: no block needs another one, so the two cores of a v4 or v5p may share them.
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=16 * 2**20
        ),
        cost_estimate=cost,
        interpret=interpret,
        name=f"attention_{direction}",
    )(seed, *(s[:, None, :] for s in segments), *arrays)


def _forward_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, k, v, out, *, rate, head_width
):
    first = _first(q.shape[0], head_width)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        seen = _seen(query_segments[row], key_segments[row])
        output = jnp.zeros(q.shape[1:], jnp.float32)
        for head, lanes in heads(head_width):
            # The sum is taken before dropout, which falls on the probabilities.
            raised, total = _raised(jnp.where(lanes, q[row], 0), k[row], seen, head_width)
            keep = _keep(seed, first[0] + row, first[1] + head, raised.shape, rate)
            dropped = drop(raised, keep, 1 / (1 - rate)).astype(v.dtype)
            values = jnp.where(lanes, v[row], 0)
            # The product is divided by the sums instead of the scores: it has fewer columns.
            output += product(dropped, values, 1, 0) / total
        out[row] = output.astype(out.dtype)
        return _

    jax.lax.fori_loop(0, q.shape[0], one_row, 0)


def _backward_body(  # type: ignore[no-untyped-def]
    seed, query_segments, key_segments, q, k, v, gradient, dq, dk, dv, *, rate, head_width
):
    first = _first(q.shape[0], head_width)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        seen = _seen(query_segments[row], key_segments[row])
        sums = [jnp.zeros(q.shape[1:], jnp.float32) for _ in range(3)]
        for head, lanes in heads(head_width):
            q_h, k_h, g_h = (jnp.where(lanes, x[row], 0) for x in (q, k, gradient))
            raised, total = _raised(q_h, k[row], seen, head_width)
            # One division a query and not one a score.
            probabilities = raised * (1 / total)
            keep = _keep(seed, first[0] + row, first[1] + head, raised.shape, rate)
            d_probabilities = drop(product(g_h, v[row], 1, 1), keep, 1 / (1 - rate))
            mean = jnp.sum(probabilities * d_probabilities, axis=1, keepdims=True)
            # A masked score is a constant, also where a query sees no key and probabilities are
            # above 0.
            d_scores = jnp.where(seen, probabilities * (d_probabilities - mean), 0).astype(q.dtype)
            dropped = drop(probabilities, keep, 1 / (1 - rate)).astype(q.dtype)
            parts = (
                product(d_scores, k_h, 1, 0),
                product(d_scores, q_h, 0, 0),
                product(dropped, g_h, 0, 0),
            )
            sums = [a + b for a, b in zip(sums, parts, strict=True)]
        # The scores were scaled, so the gradients of queries and keys need the same factor.
        scale = head_width**-0.5
        scaled = (sums[0] * scale, sums[1] * scale, sums[2])
        for ref, summed in zip((dq, dk, dv), scaled, strict=True):
            ref[row] = summed.astype(ref.dtype)
        return _

    jax.lax.fori_loop(0, q.shape[0], one_row, 0)


def heads(head_width: int) -> list[tuple[int, Array]]:
    """Return (number in the block, mask of its lanes [1, 128]) for each head of a block."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
    numbered = []
    for head in range(LANES // head_width):
        lanes = (lane >= head * head_width) & (lane < (head + 1) * head_width)
        numbered.append((head, lanes))
    return numbered


def product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Return the matrix product over the given axes, in float32."""
    return jax.lax.dot_general(
        a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _seen(query_segments_1xL: Array, key_segments_1xL: Array) -> Array:
    """Return [L, L], True where a query sees a key.

    Both segment arrays lie along lanes; that of the queries is transposed to lie along sublanes.
    """
    length = query_segments_1xL.shape[1]
    queries = jnp.broadcast_to(query_segments_1xL, (LANES, length)).T[:, :1]
    return queries == key_segments_1xL


def _raised(q_LxK: Array, k_LxK: Array, seen_LxL: Array, head_width: int) -> tuple[Array, Array]:
    """Return exp(score - the query's largest score), [L, L], and its sums over keys, [L, 1].

    The first divided by the second is the softmax.
    """
    scores = jnp.where(seen_LxL, product(q_LxK * head_width**-0.5, k_LxK, 1, 1), MASKED)
    raised = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return raised, jnp.sum(raised, axis=1, keepdims=True)


def _first(block_rows: int, head_width: int) -> tuple[Array, Array]:
    """Return the numbers on this device of the block's first row and first head."""
    return pl.program_id(0) * block_rows, pl.program_id(1) * (LANES // head_width)


def _keep(seed, row, head, shape, rate):  # type: ignore[no-untyped-def]
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    return score_mask(seed, row, head, query, key, shape[1], rate)
