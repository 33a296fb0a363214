"""The masked-word head."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import ACTIVATIONS, constant, dense, layer_norm
from bertjax.model.layout import Layout


class MlmHead(nn.Module):
    """Masked-word scores, through the word embedding that the encoder reads with."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, hidden_BxPxD: Array, word_embedding_VxE: Array) -> Array:
        c = self.config
        x_BxPxE = ACTIVATIONS[c.hidden_act](dense(c, c.embedding_width, ("embed", None), "transform")(hidden_BxPxD))
        x_BxPxE = layer_norm(c, "layer_norm")(x_BxPxE).astype(c.dtype)
        bias_V = self.param("bias", constant(0.0, "vocab"), (c.vocab_size,), jnp.float32)
        table = word_embedding_VxE.astype(c.dtype)
        scores_BxPxV = jnp.einsum("bpe,ve->bpv", x_BxPxE, table, preferred_element_type=jnp.float32)
        return self.layout(scores_BxPxV + bias_V[None, None, :], "batch", None, "vocab")
