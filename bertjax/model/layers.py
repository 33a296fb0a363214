"""The small parts that every layer is made of: linear, layer norm, dropout, activation.

Parameters are float32 and carry logical axis names, which `bertjax.parallel.rules` maps to mesh
axes. Axis letters are those of `bertjax.model.functional`.
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
from bertjax.model.layout import Layout, Names
from bertjax.model.matrix import Matrix


def _normal_cdf(x: Array) -> Array:
    # erfc would be exact in the far tail too, but it takes ten times as long. In that tail x cdf(x)
    # is near 0 anyway.
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """GELU (arXiv 1606.08415): x times the standard normal distribution function at x.

    Computed in float32, returned in the type of `x`.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Hand-written derivative: the backward pass keeps one array, the slope, in the type of `x`."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    # The derivative of x cdf(x) is cdf(x) + x density(x), with the normal distribution's density
    # exp(-x^2 / 2) / sqrt(2 pi).
    density = math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * jnp.square(wide))
    return gelu(x), (_normal_cdf(wide) + wide * density).astype(x.dtype) * dx


# Coefficients of x and x^3 in the argument of the tanh, from section 2 of GELU's paper.
SLOPE, CUBE = math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715


@jax.custom_jvp
def gelu_tanh(x: Array) -> Array:
    """GELU by the tanh formula of its paper's section 2 (arXiv 1606.08415), in float32."""
    wide = x.astype(jnp.float32)
    return (wide * _tanh_cdf(wide, _square(wide))).astype(x.dtype)


def _square(x: Array) -> Array:
    """Return x^2, limited to 30."""
    # Where x^2 > 30 the tanh is 1 or -1 already, and stays so with 30 in the cubic term. In the
    # derivative a larger square would only magnify the rounding error of the tanh.
    return jnp.minimum(jnp.square(x), 30)


def _tanh_cdf(x: Array, square: Array) -> Array:
    """Return (1 + tanh(SLOPE x + CUBE x^3)) / 2, where `square` is x^2."""
    return 0.5 + 0.5 * jnp.tanh(x * (SLOPE + CUBE * square))


@gelu_tanh.defjvp
def _gelu_tanh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Hand-written derivative, as for `gelu`; JAX's own would take twice as many operations."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    square = _square(wide)
    cdf = _tanh_cdf(wide, square)
    # The cdf is (1 + tanh u) / 2 with u = SLOPE x + CUBE x^3. As 1 - tanh(u)^2 = 4 cdf (1 - cdf),
    # its derivative is 2 cdf (1 - cdf) u', where u' = SLOPE + 3 CUBE x^2.
    slope = cdf + wide * cdf * (1 - cdf) * (2 * SLOPE + 6 * CUBE * square)
    return gelu_tanh(x), slope.astype(x.dtype) * dx


@jax.custom_jvp
def silu(x: Array) -> Array:
    """SiLU (arXiv 1606.08415, section 2): x times the logistic function at x, in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.nn.sigmoid(wide)).astype(x.dtype)


@silu.defjvp
def _silu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Hand-written derivative, as for `gelu`: JAX's own would keep two arrays."""
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    share = jax.nn.sigmoid(wide)
    # The logistic function s has the derivative s (1 - s).
    slope = share * (1 + wide * (1 - share))
    return silu(x), slope.astype(x.dtype) * dx


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": jax.nn.relu,
    "silu": silu,
    "tanh": jnp.tanh,
}
"""The activation of each value of `model.hidden_act`, and the pooler's tanh."""


def initial(config: ModelConfig, *axes: str | None) -> Callable[..., Any]:
    """Return the initializer of kernels and embeddings that `config.initializer` names.

    `axes` are the logical names of the parameter's axes.
    """
    init: Callable[..., Any]
    if config.initializer == "uniform":
        largest = config.initializer_range
        init = partial(jax.random.uniform, minval=-largest, maxval=largest)
    else:
        # The deviation is that of the uncut normal, as with TensorFlow's
        # truncated_normal_initializer, which the original uses (modeling.py, create_initializer).
        init = jax.nn.initializers.truncated_normal(config.initializer_range)
    return nn.with_logical_partitioning(init, axes)


def constant(value: float, *axes: str | None) -> Callable[..., Any]:
    """Return an initializer of one value; `axes` are the logical names of the parameter's axes."""
    return nn.with_logical_partitioning(jax.nn.initializers.constant(value), axes)


# Names of activations that a `remat` policy (`encoder.POLICIES`) may keep for the backward pass.
HEADS = "heads"  # queries, keys and values
PROJECTED = "projected"  # inputs of activation functions and of layer norms
ATTENDED = "attended"  # outputs of the attention heads
STATISTICS = "statistics"  # means and deviations of layer norms
NORMALIZED = "normalized"  # results of the kernel for norms before sublayers


class Linear(nn.Module):
    """A linear layer over the last axis, `[..., in]` to `[..., out]`, computed in `config.dtype`.

    The kernel's shape is `[*inputs, *outputs]`: `in` is the product of `inputs`, and `out` the
    product of `outputs`. The result is not reshaped to [..., H, K], because TPU compilers would pad
    K = 64 to 128.
    """

    config: ModelConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    """Logical names of the kernel's axes."""
    feeds_kernel: bool = False
    """True if a Pallas kernel reads the result: see `_add_bias_jvp`."""
    use_bias: bool = True

    def setup(self) -> None:
        # Parameters are float32 even if products are in bfloat16, whose 8 significant bits would
        # lose small steps (master weights, arXiv 1710.03740, section 3.1).
        shape, init = (*self.inputs, *self.outputs), initial(self.config, *self.axes)
        kernel: Any = self.get_variable("params", "kernel")
        # `param` would compare the shapes of its arrays, and those of a sparse one are others.
        if not isinstance(kernel, Matrix):
            kernel = self.param("kernel", init, shape, jnp.float32)
        self.kernel = kernel
        if self.use_bias:
            bias_axes = self.axes[len(self.inputs) :]
            self.bias = self.param("bias", constant(0.0, *bias_axes), self.outputs, jnp.float32)

    def flat(self) -> tuple[Array, Array | None]:
        """Return the kernel [in, out] in `config.dtype`, and the bias [out] in float32, or None."""
        kernel = self.kernel.astype(self.config.dtype).reshape(math.prod(self.inputs), -1)
        return kernel, self.bias.reshape(-1) if self.use_bias else None

    def __call__(self, x: Array, kept: Array | None = None) -> Array:
        """Return the product with `x`; `kept` is that of `linear`."""
        x = x.astype(self.config.dtype)
        if not isinstance(self.kernel, Matrix):
            return linear(x, *self.flat(), self.feeds_kernel, kept)
        product = self.kernel.product(x, len(self.inputs)).astype(x.dtype)
        bias = self.bias.reshape(-1) if self.use_bias else None
        return _with_bias(product, bias, self.feeds_kernel)

    @property
    def is_matrix(self) -> bool:
        """Whether the kernel is a `Matrix`, which has no `flat` form."""
        return isinstance(self.kernel, Matrix)


def linear(
    x: Array,
    kernel: Array,
    bias: Array | None,
    feeds_kernel: bool = False,
    kept: Array | None = None,
) -> Array:
    """Return `x` [..., in] times the kernel [in, out], plus the bias; see `Linear`.

    `kept` is `x` again, for the gradient of the kernel. It is for the result of a Pallas kernel
    that a `remat` policy keeps. What is kept and also read in the forward pass, JAX rounds to its
    own type once more (`jax.checkpoint`). After a kernel this is a pass over memory of its own:
    0.25 ms a layer of ModernBERT base on a v5e, by the TPU compiler's estimate. With the name on
    `kept` alone, it is left out.
    """
    product = jnp.dot(x, kernel) if kept is None else _product_of_kept(x, kept, kernel)
    return _with_bias(product, bias, feeds_kernel)


def _with_bias(product: Array, bias: Array | None, feeds_kernel: bool) -> Array:
    if bias is None:
        return product
    return (_add_bias_before_kernel if feeds_kernel else _add_bias)(product, bias)


@jax.custom_vjp
def _product_of_kept(x: Array, kept: Array, kernel: Array) -> Array:
    return jnp.dot(x, kernel)


def _product_of_kept_forward(x: Array, kept: Array, kernel: Array) -> tuple[Array, Any]:
    return jnp.dot(x, kernel), (kept, kernel)


def _product_of_kept_backward(residuals: Any, gradient: Array) -> tuple[Array, Array, Array]:
    kept, kernel = residuals
    d_kernel = jnp.einsum("...i,...o->io", kept, gradient)
    return jnp.dot(gradient, kernel.T), jnp.zeros_like(kept), d_kernel


_product_of_kept.defvjp(_product_of_kept_forward, _product_of_kept_backward)


def _add_bias(y: Array, bias: Array) -> Array:
    # The bias is added in float32, so that its gradient, a sum over all tokens, is float32 too.
    per_feature = (1,) * (y.ndim - 1) + (-1,)  # explicit axes of size 1 instead of broadcasting
    return (y.astype(jnp.float32) + bias.reshape(per_feature)).astype(y.dtype)


_add_bias_before_kernel = jax.custom_jvp(_add_bias)


@_add_bias_before_kernel.defjvp
def _add_bias_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Hand-written derivative: the bias's gradient as a matrix product, in float32.

    This gradient is a sum over all tokens. If a Pallas kernel computes the gradient of `y`, the
    compiler has no matrix product to fuse the sum with, and without one TPUs sum over tokens
    slowly.
    """
    (y, bias), (dy, d_bias) = primals, tangents
    # `d_bias` is the first of 8 matrix rows, and the other seven are 0: a TPU's tiles have 8 matrix
    # rows, and a product with fewer is padded.
    padded = jnp.zeros((8, d_bias.size), d_bias.dtype).at[0].set(d_bias)
    # Each token gets the sum of the 8 matrix rows, which is `d_bias`. In the backward pass the
    # transpose of this product is the sum over all tokens.
    spread = jnp.dot(
        jnp.ones((*y.shape[:-1], 8), y.dtype), padded, preferred_element_type=jnp.float32
    )
    return _add_bias(y, bias), (dy.astype(jnp.float32) + spread).astype(y.dtype)


class Norm(nn.Module):
    """The norm of `config.norm_type` over the last axis, in float32; the result in `config.dtype`.

    It has the scale and bias that the configuration gives to norms, or both if it `is_affine`.
    """

    config: ModelConfig
    is_affine: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale, bias = scale_and_bias(self, self.config, x.shape[-1], is_affine=self.is_affine)
        return normalized(self.config, x.astype(jnp.float32), scale, bias)


def scale_and_bias(
    module: nn.Module, config: ModelConfig, width: int, *, is_affine: bool = False
) -> tuple[Array | None, Array | None]:
    """Return the parameters of a norm, [width] float32, or None; they are made in `module`."""
    scale, bias = None, None
    if is_affine or config.norm_scale:
        scale = module.param("scale", constant(1.0, "norm"), (width,), jnp.float32)
    if is_affine or "norm" in config.biases:
        bias = module.param("bias", constant(0.0, "norm"), (width,), jnp.float32)
    return scale, bias


def normalized(config: ModelConfig, x: Array, scale: Array | None, bias: Array | None) -> Array:
    """Return the norm of float32 `x` over the last axis (arXiv 1607.06450 or 1910.07467).

    The result is in `config.dtype`.
    """
    if config.norm_type == "rms_norm":
        result = _divided_by_root_mean_square(x, config.layer_norm_eps)
    else:
        result = _normalize(x, config.layer_norm_eps)
    per_feature = (1,) * (x.ndim - 1) + (-1,)
    if scale is not None:
        result = result * scale.reshape(per_feature)
    if bias is not None:
        result = result + bias.reshape(per_feature)
    return result.astype(config.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _divided_by_root_mean_square(x: Array, epsilon: float) -> Array:
    return x * _inverse_root_mean_square(x, epsilon)


def _inverse_root_mean_square(x: Array, epsilon: float) -> Array:
    square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return checkpoint_name(jax.lax.rsqrt(square + epsilon), STATISTICS)


@_divided_by_root_mean_square.defjvp
def _divided_by_root_mean_square_jvp(
    epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    """Hand-written derivative, as for `_normalize`: that one's without the mean."""
    (x,), (dx,) = primals, tangents
    scale = _inverse_root_mean_square(x, epsilon)
    normal = x * scale
    return normal, scale * (dx - normal * jnp.mean(dx * normal, axis=-1, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _normalize(x: Array, epsilon: float) -> Array:
    """Return (x - mean) / deviation, along the last axis.

    The variance takes two passes over `x`. The formula E[x^2] - E[x]^2 with one pass would lose
    every digit if a mean is much larger than the deviation, and BERT's epsilon (1e-12) is too small
    to hide that error.
    """
    mean, scale = _statistics(x, epsilon)
    return (x - mean) * scale


def _statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Return mean and 1 / deviation along the last axis, which `remat` policies may keep."""
    mean = checkpoint_name(jnp.mean(x, axis=-1, keepdims=True), STATISTICS)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    return mean, checkpoint_name(jax.lax.rsqrt(variance + epsilon), STATISTICS)


@_normalize.defjvp
def _normalize_jvp(
    epsilon: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    """Hand-written derivative: with JAX's own, compiled programs read `x` and `dx` more often."""
    (x,), (dx,) = primals, tangents
    mean, scale = _statistics(x, epsilon)
    normal = (x - mean) * scale
    # Let s = 1 / deviation and n = (x - mean) s. Then d mean = mean(dx) and d s = -s^2 mean(dx n),
    # so d n = s (dx - mean(dx) - n mean(dx n)).
    mean_product = jnp.mean(dx * normal, axis=-1, keepdims=True)
    return normal, scale * (dx - jnp.mean(dx, axis=-1, keepdims=True) - normal * mean_product)


def dropout(
    config: ModelConfig, x: Array, rate: float, key: Array | None, layout: Layout, names: Names
) -> Array:
    """Set each element of `x` to 0 with probability `rate`, and scale up the others.

    Returns `x` itself without a key. `names` are the logical names of the axes. Each element takes
    16 random bits, at half the cost of the usual 32. So the probability is `rate` rounded to a
    multiple of 1/65,536, and the scale is computed from the rounded rate. If `config.dropout_bits`
    is `hash`, the probability is exact to 2**-32.
    """
    if key is None or rate == 0.0:
        return x
    if config.dropout_bits == "hash":
        # The hash numbers rows by the axes before `length`, and elements of a row by the rest.
        row_axes = names.index("length")
        row_numbers = layout.row_numbers(x.shape[0])
        keep = random_bits.keep_mask(key, row_numbers, x.shape, row_axes, rate)
        return random_bits.drop(x, keep, 1 / (1 - rate))
    draw = random_bits.threefry if config.dropout_bits == "threefry" else random_bits.rbg
    threshold = round(rate * 65_536)
    keep = draw(key, x.shape, layout, names) >= threshold
    # A rate that rounds to 1 drops everything; the maximum then avoids a division by 0.
    kept_values = max(65_536 - threshold, 1)
    return random_bits.drop(x, keep, 65_536 / kept_values)
