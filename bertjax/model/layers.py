"""The small parts that every layer is made of: linear, layer norm, dropout, activation.

Parameters are float32 and carry logical axis names, which `bertjax.parallel.rules`
maps to mesh axes. Axis letters are those of `bertjax.model.functional`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.kernels import fused_norm
from bertjax.model.kernels import selection as kernels
from bertjax.model.layout import ROWS, Layout, Names


def _normal_cdf(x: Array) -> Array:
    # Not by erfc, which keeps digits of the far tail that x times it has no use for, and takes ten
    # times as long.
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """x times the normal distribution's cumulative function at x (arXiv 1606.08415), worked in
    float32.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """By hand, so that one array in the type of `x` is kept for the backward pass."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * jnp.square(wide))
    return gelu(x), (_normal_cdf(wide) + wide * density).astype(x.dtype) * dx


SLOPE, CUBE = math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715


@jax.custom_jvp
def gelu_tanh(x: Array) -> Array:
    """GELU by the tanh formula of its paper's section 2 (arXiv 1606.08415), worked in float32."""
    wide = x.astype(jnp.float32)
    return (wide * _tanh_cdf(wide, _square(wide))).astype(x.dtype)


def _square(x: Array) -> Array:
    return jnp.minimum(
        jnp.square(x), 30
    )  # beyond, the tanh is 1; a larger factor would but magnify its rounding


def _tanh_cdf(x: Array, square: Array) -> Array:
    return 0.5 + 0.5 * jnp.tanh(x * (SLOPE + CUBE * square))


@gelu_tanh.defjvp
def _gelu_tanh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """By hand, as `gelu`'s, and with half of the operations of the slope that JAX derives."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    square = _square(wide)
    below = _tanh_cdf(wide, square)
    slope = below + wide * below * (1 - below) * (2 * SLOPE + 6 * CUBE * square)
    return gelu_tanh(x), slope.astype(x.dtype) * dx


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": jax.nn.relu,
}


def truncated_normal(config: ModelConfig, *axes: str | None) -> Callable[..., Any]:
    """BERT's initialiser for kernels and embeddings, with the logical names of the parameter's
    axes.
    """
    init = jax.nn.initializers.truncated_normal(config.initializer_range)
    return nn.with_logical_partitioning(init, axes)


def constant(value: float, *axes: str | None) -> Callable[..., Any]:
    """An initialiser of one value, with the logical names of the parameter's axes."""
    return nn.with_logical_partitioning(jax.nn.initializers.constant(value), axes)


# What `remat` keeps of a layer beside its input, by these names.
HEADS, PROJECTED, ATTENDED, STATISTICS = "heads", "projected", "attended", "statistics"


class Linear(nn.Module):
    """A linear layer over the last axis, `[..., in]` to `[..., out]`, computed in `config.dtype`.

    Its kernel is `[*inputs, *outputs]`, whose sizes multiply to in and out. Computed flat: of a
    product that ends in [H, K], compilers lay K = 64 out as 128.
    """

    config: ModelConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    feeds_kernel: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        kernel = self.param(
            "kernel", truncated_normal(c, *self.axes), (*self.inputs, *self.outputs), jnp.float32
        )
        bias = self.param(
            "bias", constant(0.0, *self.axes[len(self.inputs) :]), self.outputs, jnp.float32
        )
        flat = kernel.astype(c.dtype).reshape(math.prod(self.inputs), -1)
        add = _add_bias_before_kernel if self.feeds_kernel else _add_bias
        return add(jnp.dot(x.astype(c.dtype), flat), bias.reshape(-1))


def _add_bias(y: Array, bias: Array) -> Array:
    # In float32, so that the bias's gradient, a sum over all tokens, is summed in it.
    return (y.astype(jnp.float32) + bias.reshape((1,) * (y.ndim - 1) + (-1,))).astype(y.dtype)


_add_bias_before_kernel = jax.custom_jvp(_add_bias)


@_add_bias_before_kernel.defjvp
def _add_bias_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    """By hand: the bias's gradient, a sum over all tokens, as a matrix product, in float32.

    Where the gradient of `y` comes from a kernel, no product is there that the compiler could add
    the sum to, and TPUs are slow to sum over rows.
    """
    (y, bias), (dy, d_bias) = primals, tangents
    padded = jnp.zeros((8, d_bias.size), d_bias.dtype).at[0].set(d_bias)
    spread = jnp.dot(
        jnp.ones((*y.shape[:-1], 8), y.dtype), padded, preferred_element_type=jnp.float32
    )
    return _add_bias(y, bias), (dy.astype(jnp.float32) + spread).astype(y.dtype)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32; the result has the configuration's type."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale, bias = _scale_and_bias(self, x.shape[-1])
        return _affine(
            _normalise(x.astype(jnp.float32), self.config.layer_norm_eps), scale, bias, self.config
        )


class ResidualNorm(nn.Module):
    """The layer norm of `x + dropout(added)`, all [B, L, D]; deterministic without a key."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x: Array, added: Array, key: Array | None) -> Array:
        c, layout = self.config, self.layout
        scale, bias = _scale_and_bias(self, x.shape[-1])
        if kernels.norm(c, x.shape[1], layout):
            added = checkpoint_name(added, PROJECTED)
            return residual_norm_kernel(c, layout, x, added, scale, bias, key)
        added = checkpoint_name(
            dropout(c, added, c.hidden_dropout_prob, key, layout, ROWS), PROJECTED
        )
        summed = x.astype(jnp.float32) + added.astype(jnp.float32)
        return _affine(_normalise(summed, c.layer_norm_eps), scale, bias, c)


def residual_norm_kernel(
    config: ModelConfig,
    layout: Layout,
    x: Array,
    added: Array,
    scale: Array,
    bias: Array,
    key: Array | None,
    interpret: bool = False,
) -> Array:
    """`ResidualNorm` by the TPU kernel; `interpret` runs it, slowly, where there is no TPU."""
    rate = 0.0 if key is None else config.hidden_dropout_prob

    def local(
        x: Array, added: Array, scale: Array, bias: Array, words: Array, rows: Array
    ) -> Array:
        seed = jnp.concatenate([words, rows[:1]])
        static = (config.layer_norm_eps, rate, interpret)
        return fused_norm.fused_norm(static, x, added, scale[None, :], bias[None, :], seed)

    rows: Names = ("batch", None, None)
    run = layout.per_device(local, [rows, rows, (None,), (None,), (None,), ("batch",)], rows)
    return run(
        x, added, scale, bias, random_bits.words(key), jnp.arange(x.shape[0], dtype=jnp.int32)
    )


def _scale_and_bias(module: nn.Module, width: int) -> tuple[Array, Array]:
    return (
        module.param("scale", constant(1.0, "norm"), (width,), jnp.float32),
        module.param("bias", constant(0.0, "norm"), (width,), jnp.float32),
    )


def _affine(normal: Array, scale: Array, bias: Array, config: ModelConfig) -> Array:
    per_feature = (1,) * (normal.ndim - 1) + (-1,)
    return (normal * scale.reshape(per_feature) + bias.reshape(per_feature)).astype(config.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _normalise(x: Array, epsilon: float) -> Array:
    """`x` less its mean over its deviation, along the last axis.

    Two passes for the variance: E[x^2] - E[x]^2 loses every digit of a row whose mean is large
    beside its deviation, and BERT's epsilon is too small to hide it.
    """
    mean, scale = _statistics(x, epsilon)
    return (x - mean) * scale


def _statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    mean = checkpoint_name(jnp.mean(x, axis=-1, keepdims=True), STATISTICS)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    return mean, checkpoint_name(jax.lax.rsqrt(variance + epsilon), STATISTICS)


@_normalise.defjvp
def _normalise_jvp(
    epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    """By hand, since from the derivatives of mean and variance compilers read each row several
    times more.
    """
    (x,), (dx,) = primals, tangents
    mean, scale = _statistics(x, epsilon)
    normal = (x - mean) * scale
    along = jnp.mean(dx * normal, axis=-1, keepdims=True)
    return normal, scale * (dx - jnp.mean(dx, axis=-1, keepdims=True) - normal * along)


def dropout(
    config: ModelConfig, x: Array, rate: float, key: Array | None, layout: Layout, names: Names
) -> Array:
    """Zero each element of `x` with probability `rate` and scale up the rest; `x` itself without a
    key.

    The probability is `rate` to 1 in 65,536 (by `hash` to 1 in 2**32): 16 random bits an element
    cost half of the usual 32, and the scale uses the probability that is really there. `names` are
    the logical names of the axes.
    """
    if key is None or rate == 0.0:
        return x
    if config.dropout_bits == "hash":
        keep, scale = random_bits.keep(key, x.shape, names.index("length"), rate), 1 / (1 - rate)
    else:
        draw = {"threefry": random_bits.threefry, "rbg": random_bits.rbg}[config.dropout_bits]
        threshold = round(rate * 65_536)
        keep, scale = (
            draw(key, x.shape, layout, names) >= threshold,
            65_536 / max(65_536 - threshold, 1),
        )
    return random_bits.drop(x, keep, scale)
