"""The head for replaced tokens."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import ACTIVATIONS, Linear


class RtdHead(nn.Module):
    """Linear layer, activation, and a linear layer to one number; `[..., D]` to `[...]` float32.

    The number is the logit of the probability that the token was replaced. The activation is that
    of the layers, as in ELECTRA (arXiv 2003.10555).
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        width, axes = (c.hidden_size,), ("embed", None)
        self.dense = Linear(c, width, width, axes)
        self.output = Linear(c, width, (1,), axes)

    def __call__(self, x: Array) -> Array:
        active = ACTIVATIONS[self.config.hidden_act](self.dense(x))
        # Float32 for the loss, whatever the type of the product.
        return self.output(active)[..., 0].astype(jnp.float32)
