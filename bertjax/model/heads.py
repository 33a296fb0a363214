"""The masked-word head."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import ACTIVATIONS, LayerNorm, Linear, constant
from bertjax.model.layout import Layout


class MlmHead(nn.Module):
    """Masked-word scores, through the word embedding that the encoder reads with."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, hidden_BxPxD: Array, word_embedding_VxE: Array) -> Array:
        c = self.config
        transform = Linear(c, (c.hidden_size,), (c.embedding_width,), ("embed", None), name="transform")
        x_BxPxE = LayerNorm(c, name="layer_norm")(ACTIVATIONS[c.hidden_act](transform(hidden_BxPxD)))
        bias_V = self.param("bias", constant(0.0, "vocab"), (c.vocab_size,), jnp.float32)
        table = word_embedding_VxE.astype(c.dtype)
        scores_BxPxV = jnp.einsum("bpe,ve->bpv", x_BxPxE, table, preferred_element_type=jnp.float32)
        return self.layout(scores_BxPxV + bias_V[None, None, :], "batch", None, "vocab")
