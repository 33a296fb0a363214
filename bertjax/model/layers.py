"""The small parts that every layer is made of: dense, layer norm, dropout, activation.

Parameters are float32 and carry logical axis names, which `bertjax.parallel.rules`
maps to mesh axes. Axis letters are those of `bertjax.model.functional`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


def truncated_normal(config: ModelConfig, *axes: str | None) -> Callable[..., Any]:
    """BERT's initialiser for kernels and embeddings, with the logical names of the parameter's axes."""
    init = jax.nn.initializers.truncated_normal(config.initializer_range)
    return nn.with_logical_partitioning(init, axes)


def constant(value: float, *axes: str | None) -> Callable[..., Any]:
    """An initialiser of one value, with the logical names of the parameter's axes."""
    return nn.with_logical_partitioning(jax.nn.initializers.constant(value), axes)


def dense(
    config: ModelConfig,
    features: int | tuple[int, ...],
    kernel_axes: tuple[str | None, ...],
    name: str | None = None,
    *,
    inputs: int = 1,
) -> nn.DenseGeneral:
    """A linear layer over the last `inputs` axes, its kernel `[in..., out...]`, computed in `config.dtype`."""
    return nn.DenseGeneral(
        features,
        axis=tuple(range(-inputs, 0)),
        dtype=config.dtype,
        param_dtype=jnp.float32,
        kernel_init=truncated_normal(config, *kernel_axes),
        bias_init=constant(0.0, *kernel_axes[inputs:]),
        name=name,
    )


def layer_norm(config: ModelConfig, name: str | None = None) -> nn.LayerNorm:
    """Layer norm in float32.

    Two passes for the variance: E[x^2] - E[x]^2, Flax's default, loses every digit of a
    row whose mean is large beside its deviation, and BERT's epsilon is too small to hide it.
    """
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        use_fast_variance=False,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        scale_init=constant(1.0, "norm"),
        bias_init=constant(0.0, "norm"),
        name=name,
    )


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero each element of `x` with probability `rate` and scale up the rest; `x` itself without a key.

    The probability is `rate` to 1 in 65,536: 16 random bits an element cost half of
    the usual 32, and the scale uses the probability that is really there.
    """
    if key is None or rate == 0.0:
        return x
    threshold = round(rate * 65_536)
    keep = jax.random.bits(key, x.shape, jnp.uint16) >= threshold
    scale = 65_536 / max(65_536 - threshold, 1)
    return jnp.where(keep, x * scale, 0).astype(x.dtype)
