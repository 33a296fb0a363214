"""Norms of a sublayer: after it, of its input plus its output with dropout, or before it.

BERT normalizes after the residual (post-norm, arXiv 1706.03762, section 3.1), most encoders since
2024 before it (pre-norm, arXiv 2002.04745).
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.kernels import fused_norm
from bertjax.model.kernels import pre_norm as pre_norm_kernel
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import NORMALIZED, PROJECTED, dropout, normalized, scale_and_bias
from bertjax.model.layout import HIDDEN, Layout, Names


class ResidualNorm(nn.Module):
    """The layer norm of `x + dropout(added)`, all [B, L, D]; no dropout without a `key`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x: Array, added: Array, key: Array | None) -> Array:
        c, layout = self.config, self.layout
        scale, bias = scale_and_bias(self, c, x.shape[-1])
        if scale is not None and bias is not None and kernels.norm(c, x.shape[1], layout):
            # Named before dropout, which the kernel applies inside; below it is named after
            # dropout.
            added = checkpoint_name(added, PROJECTED)
            return residual_norm_kernel(c, layout, x, added, scale, bias, key)
        dropped = dropout(c, added, c.hidden_dropout_prob, key, layout, HIDDEN)
        dropped = checkpoint_name(dropped, PROJECTED)
        # Float32 until the norm is taken: only its result is rounded to `config.dtype`.
        summed = x.astype(jnp.float32) + dropped.astype(jnp.float32)
        return normalized(c, summed, scale, bias)


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
    """`ResidualNorm` with the TPU kernel.

    `interpret` runs the kernel in Pallas's interpreter, which is slow but works without a TPU.
    """
    rate = 0.0 if key is None else config.hidden_dropout_prob
    static = fused_norm.Static(config.layer_norm_eps, rate, interpret)

    def local(
        x: Array, added: Array, scale: Array, bias: Array, words: Array, row_numbers: Array
    ) -> Array:
        seed = jnp.concatenate([words, row_numbers])
        return fused_norm.fused_norm(static, x, added, scale[None, :], bias[None, :], seed)

    # The kernel needs whole rows, so the length is not sharded.
    names: Names = ("batch", None, None)
    run = layout.per_device(local, [names, names, (None,), (None,), (None,), ("batch",)], names)
    row_numbers = layout.row_numbers(x.shape[0])
    return run(x, added, scale, bias, random_bits.seed_words(key), row_numbers)


class Normal(NamedTuple):
    """A norm before a sublayer, and what goes past the sublayer; all [B, L, D]."""

    past: Array
    """The input, to which the sublayer's output is to be added.

    Then the kernel's backward pass gets both gradients together.
    """
    normal: Array
    """The norm."""
    kept: Array | None = None
    """The norm again, for `layers.linear`, if it comes from the kernel."""


class PreNorm(nn.Module):
    """The norm before a sublayer."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x: Array) -> Normal:
        c = self.config
        scale, bias = scale_and_bias(self, c, x.shape[-1])
        if kernels.pre_norm(c, x.shape[1], self.layout):
            past, normal = pre_norm(c, self.layout, x, scale, bias)
            return Normal(past, normal, checkpoint_name(normal, NORMALIZED))
        return Normal(x, normalized(c, x.astype(jnp.float32), scale, bias))


def pre_norm(
    config: ModelConfig,
    layout: Layout,
    x: Array,
    scale: Array | None,
    bias: Array | None,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """`PreNorm` with the TPU kernel; `interpret` is that of `residual_norm_kernel`."""
    is_centred = config.norm_type == "layer_norm"
    static = pre_norm_kernel.Static(config.layer_norm_eps, is_centred, interpret)
    width = x.shape[-1]
    scale = jnp.ones(width) if scale is None else scale
    bias = jnp.zeros(width) if bias is None else bias

    def local(x: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
        return pre_norm_kernel.pre_norm(static, x, scale[None, :], bias[None, :])

    return layout.per_device(local, [HIDDEN, (None,), (None,)], [HIDDEN, HIDDEN])(x, scale, bias)
