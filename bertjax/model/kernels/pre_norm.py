"""The norm before a sublayer in one TPU kernel that reads each row once per direction.

Without the kernel, the compiler takes mean and deviation in a pass of their own, and each matrix
product that reads the normalized rows normalizes them again. In the backward pass the kernel also
adds the gradient that comes past the sublayer, which would be a further pass.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.fused_norm import block_shape
from bertjax.model.kernels.tpu_attention import MATRIX_PER_VECTOR

# Vector operations per element, for the compiler's cost estimates.
VECTOR_OPERATIONS = {"forward": 8, "backward": 16}


class Static(NamedTuple):
    """Constants that a kernel is compiled for."""

    epsilon: float
    """Added to the variance, or to the mean square."""
    is_centred: bool
    """Whether the mean is subtracted: in a layer norm, but not in an RMS norm."""
    interpret: bool
    """True to run in Pallas's interpreter, if there is no TPU."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def pre_norm(static: Static, x: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
    """Return `x` [B, L, D], for the way past the sublayer, and its norm, in the dtype of `x`.

    The norm is computed in float32. `scale` and `bias` are float32 [1, D].
    """
    return x, _call("forward", static, (x,), (scale, bias))[0]


def _forward(
    static: Static, x: Array, scale: Array, bias: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return pre_norm(static, x, scale, bias), (x, scale)


def _backward(static: Static, residuals: tuple[Array, Array], gradients: Any) -> Any:
    x, scale = residuals
    return _call("backward", static, (x, *gradients), (scale,))


pre_norm.defvjp(_forward, _backward)


def _call(direction: str, static: Static, arrays: Any, vectors: Any) -> Any:
    """Run a kernel over blocks of rows and tokens.

    `arrays` are [B, L, D], `vectors` [1, D]. The outputs are an array [B, L, D] and, backward, the
    gradients of scale and bias.
    """
    x = arrays[0]
    batch, length, width = x.shape
    rows, tokens = block_shape(batch, length, width)
    block = pl.BlockSpec((rows, tokens, width), lambda b, t: (b, t, 0))
    vector = pl.BlockSpec((1, width), lambda b, t: (0, 0))
    body, vectors_out = (_forward_body, 0) if direction == "forward" else (_backward_body, 2)
    return pl.pallas_call(
        partial(body, static=static),
        grid=(batch // rows, length // tokens),
        in_specs=[vector] * len(vectors) + [block] * len(arrays),
        out_specs=[block] + [vector] * vectors_out,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)]
        + [jax.ShapeDtypeStruct((1, width), jnp.float32)] * vectors_out,
        # The blocks run in order, because the gradients of scale and bias are summed over blocks.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=x.size * VECTOR_OPERATIONS[direction] * MATRIX_PER_VECTOR,
            # One reciprocal root a token.
            transcendentals=batch * length,
            bytes_accessed=(len(arrays) + 1) * x.size * x.dtype.itemsize,
        ),
        interpret=static.interpret,
        name=f"pre_norm_{direction}",
    )(*vectors, *arrays)


def _forward_body(scale, bias, x, out, *, static):  # type: ignore[no-untyped-def]
    def one_row(row, _):  # type: ignore[no-untyped-def]
        normal, _rsqrt = _normal(static, x[row])
        out[row] = (normal * scale[:] + bias[:]).astype(out.dtype)
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _backward_body(  # type: ignore[no-untyped-def]
    scale, x, past, gradient, d_x, d_scale, d_bias, *, static
):
    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
    def _zero():  # type: ignore[no-untyped-def]
        # An output's memory is not zero at first, and these two add up over all blocks.
        d_scale[:], d_bias[:] = jnp.zeros_like(d_scale), jnp.zeros_like(d_bias)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        normal, rsqrt = _normal(static, x[row])
        outer = gradient[row].astype(jnp.float32)
        d_scale[:] += jnp.sum(outer * normal, axis=0, keepdims=True)
        d_bias[:] += jnp.sum(outer, axis=0, keepdims=True)
        inner = outer * scale[:]
        # The formulas of `layers`: these linear maps are their own transposes.
        change = inner - normal * jnp.mean(inner * normal, axis=1, keepdims=True)
        if static.is_centred:
            change = change - jnp.mean(inner, axis=1, keepdims=True)
        d_x[row] = (past[row].astype(jnp.float32) + rsqrt * change).astype(d_x.dtype)
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _normal(static: Static, x: Array) -> tuple[Array, Array]:
    """Return `x` normalized along the last axis, in float32, and the factor that scaled it."""
    wide = x.astype(jnp.float32)
    if static.is_centred:
        # Mean and variance take two passes, for the reason given at `layers._normalize`; the row
        # stays in on-chip memory for both.
        wide = wide - jnp.mean(wide, axis=1, keepdims=True)
    rsqrt = jax.lax.rsqrt(jnp.mean(wide * wide, axis=1, keepdims=True) + static.epsilon)
    return wide * rsqrt, rsqrt
