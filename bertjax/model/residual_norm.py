"""Layer norm after a sublayer: normalizes the sublayer's input plus its output with dropout.

BERT normalizes after the residual (post-norm, arXiv 1706.03762, section 3.1).
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.kernels import fused_norm
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import PROJECTED, dropout, normalized, scale_and_bias
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
