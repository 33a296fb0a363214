"""The pooler: sentence vectors from hidden states."""

from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import ACTIVATIONS, Linear, Norm


class Pooler(nn.Module):
    """Linear layer, activation and perhaps norm, as `config` says; `[..., D]` to `[..., D]`.

    The linear layer's parameters are the pooler's own.
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        if c.pooler == "none":
            return
        width, axes = (c.hidden_size,), ("embed", None)
        self.linear = Linear(c, width, width, axes, use_bias="pooler" in c.biases)
        nn.share_scope(self, self.linear)
        if c.pooler_norm:
            self.layer_norm = Norm(c)

    def __call__(self, x: Array) -> Array:
        c = self.config
        if c.pooler == "none":
            return x
        active = ACTIVATIONS[c.pooler_act](self.linear(x))
        return self.layer_norm(active) if c.pooler_norm else active
