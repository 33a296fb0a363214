"""Dropout, residual and layer norm as one TPU kernel: each row is read once, forward and backward.

Left to the compiler, sums along rows are separate passes over memory: one for the mean, one for the
variance, one for the result, and as many again for the gradient, each working out dropout's bits
anew.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.model.kernels.tpu_attention import LANES, MATRIX_PER_VECTOR
from bertjax.model.random_bits import drop, kept

TOKENS = 512  # in a block, at most
NUMBERS = 512 * 768  # in a block, at most: with what is worked out of them they fit a core's memory
VECTOR_OPERATIONS = {"forward": 12, "backward": 24, "dropout": 20}


def fits(length: int, width: int) -> bool:
    """Whether the kernel takes rows of this length and vectors of this width."""
    return length % LANES == 0 and width % LANES == 0 and LANES * width <= NUMBERS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def fused_norm(
    static: "tuple[float, float, bool]",
    x: Array,
    added: Array,
    scale: Array,
    bias: Array,
    seed: Array,
) -> Array:
    """The layer norm of x + dropout(added), both [B, L, D], in float32; the result has their type.

    `static` is (epsilon, dropout_rate, interpret); `scale` and `bias` [1, D] float32; `seed` [3]
    int32: two words, and the number of the first row.
    """
    return _call("forward", static, (x, added), (scale, bias), seed)[0]


def _forward(
    static: Any, x: Array, added: Array, scale: Array, bias: Array, seed: Array
) -> tuple[Array, Any]:
    return fused_norm(static, x, added, scale, bias, seed), (x, added, scale, seed)


def _backward(static: Any, residuals: Any, gradient: Array) -> Any:
    x, added, scale, seed = residuals
    return *_call("backward", static, (x, added, gradient), (scale,), seed), None


fused_norm.defvjp(_forward, _backward)


def _call(direction: str, static: Any, arrays: Any, vectors: Any, seed: Array) -> Any:
    epsilon, rate, interpret = static
    x = arrays[0]
    batch, length, width = x.shape
    most = min(TOKENS, NUMBERS // width)
    tokens = next(
        n for n in range(min(length, most // LANES * LANES), 0, -LANES) if length % n == 0
    )
    rows = next(n for n in range(min(batch, most // tokens), 0, -1) if batch % n == 0)
    block = pl.BlockSpec((rows, tokens, width), lambda b, t: (b, t, 0))
    vector = pl.BlockSpec((1, width), lambda b, t: (0, 0))
    big, small = {"forward": (1, 0), "backward": (2, 2)}[direction]
    operations = VECTOR_OPERATIONS[direction] + (VECTOR_OPERATIONS["dropout"] if rate else 0)
    body: Any = {"forward": _forward_body, "backward": _backward_body}[direction]
    return pl.pallas_call(
        partial(body, epsilon=epsilon, rate=rate),
        grid=(batch // rows, length // tokens),
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM)]
        + [vector] * len(vectors)
        + [block] * len(arrays),
        out_specs=[block] * big + [vector] * small,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * big
        + [jax.ShapeDtypeStruct((1, width), jnp.float32)] * small,
        # In order, since the gradients of scale and bias add up from block to block.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=x.size * operations * MATRIX_PER_VECTOR,
            transcendentals=batch * length,
            bytes_accessed=(len(arrays) + big) * x.size * x.dtype.itemsize,
        ),
        interpret=interpret,
        name=f"norm_{direction}",
    )(seed, *vectors, *arrays)


def _forward_body(seed, scale, bias, x, added, out, *, epsilon, rate):  # type: ignore[no-untyped-def]
    first = seed[2] + pl.program_id(0) * x.shape[0], pl.program_id(1) * x.shape[1]

    def one_row(row, _):  # type: ignore[no-untyped-def]
        stays = _kept(seed, first, row, x.shape[1:], rate)
        normal, _rsqrt = _normal(x[row], drop(added[row], stays, 1 / (1 - rate)), epsilon)
        out[row] = (normal * scale[:] + bias[:]).astype(out.dtype)
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _backward_body(  # type: ignore[no-untyped-def]
    seed, scale, x, added, gradient, d_x, d_added, d_scale, d_bias, *, epsilon, rate
):
    first = seed[2] + pl.program_id(0) * x.shape[0], pl.program_id(1) * x.shape[1]

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(1) == 0))
    def _zero():  # type: ignore[no-untyped-def]
        d_scale[:], d_bias[:] = jnp.zeros_like(d_scale), jnp.zeros_like(d_bias)

    def one_row(row, _):  # type: ignore[no-untyped-def]
        stays = _kept(seed, first, row, x.shape[1:], rate)
        normal, rsqrt = _normal(x[row], drop(added[row], stays, 1 / (1 - rate)), epsilon)
        outer = gradient[row].astype(jnp.float32)
        d_scale[:] += jnp.sum(outer * normal, axis=0, keepdims=True)
        d_bias[:] += jnp.sum(outer, axis=0, keepdims=True)
        inner = outer * scale[:]
        along = jnp.mean(inner * normal, axis=1, keepdims=True)
        d_sum = (rsqrt * (inner - jnp.mean(inner, axis=1, keepdims=True) - normal * along)).astype(
            d_x.dtype
        )
        d_x[row] = d_sum
        d_added[row] = drop(d_sum, stays, 1 / (1 - rate))
        return _

    jax.lax.fori_loop(0, x.shape[0], one_row, 0)


def _normal(x: Array, added: Array, epsilon: float) -> tuple[Array, Array]:
    """Each row of x + added less its mean over its deviation, and one over that deviation."""
    total = x.astype(jnp.float32) + added.astype(jnp.float32)
    total = total - jnp.mean(total, axis=1, keepdims=True)
    rsqrt = jax.lax.rsqrt(jnp.mean(total * total, axis=1, keepdims=True) + epsilon)
    return total * rsqrt, rsqrt


def _kept(seed, first, row, shape, rate):  # type: ignore[no-untyped-def]
    """Which elements stay: as `random_bits.keep` has it for this row of the whole batch."""
    if not rate:
        return None
    token, feature = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    return kept(seed[0], seed[1], first[0] + row, (first[1] + token) * shape[1] + feature, rate)
