"""Dropout, residual and layer norm in one TPU kernel that reads each row once per direction.

Without the kernel, the compiler makes separate passes over memory: one for the mean, one for the
variance, one for the result, and the same number for the gradient. Each pass computes the dropout
bits again.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import LANES, MATRIX_PER_VECTOR
from bertjax.model.random_bits import drop, element_mask

# Limits for a block. A block of this size and its intermediate values fit the memory of a core.
MAX_TOKENS, MAX_ELEMENTS = 512, 512 * 768
# Vector operations per element, for the compiler's cost estimates.
VECTOR_OPERATIONS = {"forward": 12, "backward": 24, "dropout": 20}


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    epsilon: float
    """Added to the variance."""
    rate: float
    """Dropout rate."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no TPU."""


class _Residuals(NamedTuple):
    """Arrays kept for the backward pass, which recomputes the mean and the deviation."""

    x: Array
    added: Array
    scale: Array
    seed: Array


def fits(length: int, width: int) -> bool:
    """Return True if the kernel supports rows of this length and vectors of this width."""
    return length % LANES == 0 and width % LANES == 0 and LANES * width <= MAX_ELEMENTS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def fused_norm(
    static: Static,
    x: Array,
    added: Array,
    scale: Array,
    bias: Array,
    seed: Array,
) -> Array:
    """Return the layer norm of x + dropout(added), both [B, L, D], in their dtype.

    It is computed in float32. `scale` and `bias` are float32 [1, D]. `seed`, int32 [2 + B], has
    the two seed words of the array (`random_bits.seed_words`) and the number of each of the
    device's rows in the whole batch.
    """
    return _call("forward", static, (x, added), (scale, bias), seed)[0]


def _forward(
    static: Static, x: Array, added: Array, scale: Array, bias: Array, seed: Array
) -> tuple[Array, _Residuals]:
    output = fused_norm(static, x, added, scale, bias, seed)
    return output, _Residuals(x, added, scale, seed)


def _backward(static: Static, residuals: _Residuals, gradient: Array) -> Any:
    x, added, scale, seed = residuals
    # None for the seed, whose integers have no gradient.
    return *_call("backward", static, (x, added, gradient), (scale,), seed), None


fused_norm.defvjp(_forward, _backward)


def _call(direction: str, static: Static, arrays: Any, vectors: Any, seed: Array) -> Any:
    """Run a kernel over blocks of rows and tokens.

    `arrays` are [B, L, D], `vectors` [1, D]. The outputs are first arrays [B, L, D], then the
    gradients of the vectors.
    """
    x = arrays[0]
    batch, length, width = x.shape
    block_rows, tokens = block_shape(batch, length, width)
    block = pl.BlockSpec((block_rows, tokens, width), lambda b, t: (b, t, 0))
    vector = pl.BlockSpec((1, width), lambda b, t: (0, 0))
    body: Any = _forward_body
    arrays_out, vectors_out = 1, 0
    if direction == "backward":
        body = _backward_body
        arrays_out, vectors_out = 2, 2
    operations = VECTOR_OPERATIONS[direction]
    if static.rate:
        operations += VECTOR_OPERATIONS["dropout"]
    return pl.pallas_call(
        partial(body, epsilon=static.epsilon, rate=static.rate),
        grid=(batch // block_rows, length // tokens),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM)]
        + [vector] * len(vectors)
        + [block] * len(arrays),
        out_specs=[block] * arrays_out + [vector] * vectors_out,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * arrays_out
        + [jax.ShapeDtypeStruct((1, width), jnp.float32)] * vectors_out,
        # The blocks run in order, because the gradients of scale and bias are summed over blocks.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=x.size * operations * MATRIX_PER_VECTOR,
            # One reciprocal root a token.
            transcendentals=batch * length,
            bytes_accessed=(len(arrays) + arrays_out) * x.size * x.dtype.itemsize,
        ),
        interpret=static.interpret,
        name=f"norm_{direction}",
    )(seed, *vectors, *arrays)


def block_shape(batch: int, length: int, width: int) -> tuple[int, int]:
    """Return how many rows and tokens of an array [batch, length, width] a block has."""
    max_tokens = min(MAX_TOKENS, MAX_ELEMENTS // width)
    # Blocks divide the array: padding would be added to the gradients of scale and bias.
    tokens = _largest_divisor(length, min(length, max_tokens // LANES * LANES), LANES)
    return _largest_divisor(batch, min(batch, max_tokens // tokens), 1), tokens


def _largest_divisor(size: int, largest: int, step: int) -> int:
    """Return the largest divisor of `size` among `largest`, `largest` - `step`, …"""
    return next(n for n in range(largest, 0, -step) if size % n == 0)


def _forward_body(  # type: ignore[no-untyped-def]
    seed, scale, bias, x, added, out, *, epsilon, rate
):
    first = pl.program_id(0) * x.shape[0], pl.program_id(1) * x.shape[1]

    def one_row(row, _):  # type: ignore[no-untyped-def]
        keep = _keep(seed, first, row, x.shape[1:], rate)
        normal, _rsqrt = _normal(x[row], drop(added[row], keep, 1 / (1 - rate)), epsilon)
        out[row] = (normal * scale[:] + bias[:]).astype(out.dtype)
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _backward_body(  # type: ignore[no-untyped-def]
    seed, scale, x, added, gradient, d_x, d_added, d_scale, d_bias, *, epsilon, rate
):
    first = pl.program_id(0) * x.shape[0], pl.program_id(1) * x.shape[1]

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
    def _zero():  # type: ignore[no-untyped-def]
        # An output's memory is not zero at first, and these two add up over all blocks.
        d_scale[:], d_bias[:] = jnp.zeros_like(d_scale), jnp.zeros_like(d_bias)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        keep = _keep(seed, first, row, x.shape[1:], rate)
        normal, rsqrt = _normal(x[row], drop(added[row], keep, 1 / (1 - rate)), epsilon)
        outer = gradient[row].astype(jnp.float32)
        d_scale[:] += jnp.sum(outer * normal, axis=0, keepdims=True)
        d_bias[:] += jnp.sum(outer, axis=0, keepdims=True)
        inner = outer * scale[:]
        along = jnp.mean(inner * normal, axis=1, keepdims=True)
        mean = jnp.mean(inner, axis=1, keepdims=True)
        # The formula of `layers._normalize_jvp`: that linear map is its own transpose.
        d_sum = (rsqrt * (inner - mean - normal * along)).astype(d_x.dtype)
        d_x[row] = d_sum
        d_added[row] = drop(d_sum, keep, 1 / (1 - rate))
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _normal(x: Array, added: Array, epsilon: float) -> tuple[Array, Array]:
    """Return x + added normalized along the last axis, and 1 / deviation.

    Mean and variance take two passes, for the reason given in `layers.LayerNorm`; the row stays in
    on-chip memory for both.
    """
    total = x.astype(jnp.float32) + added.astype(jnp.float32)
    total = total - jnp.mean(total, axis=1, keepdims=True)
    rsqrt = jax.lax.rsqrt(jnp.mean(total * total, axis=1, keepdims=True) + epsilon)
    return total * rsqrt, rsqrt


def _keep(seed, first, row, shape, rate):  # type: ignore[no-untyped-def]
    """Return `random_bits.keep_mask` of this row of the whole batch; None without dropout."""
    if not rate:
        return None
    token, feature = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    low, high, row_number = seed[0], seed[1], seed[2 + first[0] + row]
    element = (first[1] + token) * shape[1] + feature
    return element_mask(low, high, row_number, element, rate)
