"""The masked-word head."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.cross_entropy import CrossEntropy, product_cross_entropy, weighted_cross_entropy
from bertjax.model.layers import ACTIVATIONS, LayerNorm, Linear, constant
from bertjax.model.layout import Layout


class MlmHead(nn.Module):
    """Masked-word scores, through the word embedding that the encoder reads with."""

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        self.transform = Linear(c, (c.hidden_size,), (c.embedding_width,), ("embed", None))
        self.layer_norm = LayerNorm(c)
        self.bias = self.param("bias", constant(0.0, "vocab"), (c.vocab_size,), jnp.float32)

    def __call__(self, hidden_BxPxD: Array, word_embedding_VxE: Array) -> Array:
        """The scores, [B, P, V] float32."""
        table = word_embedding_VxE.astype(self.config.dtype)
        x_BxPxE = self._transformed(hidden_BxPxD)
        scores_BxPxV = jnp.einsum("bpe,ve->bpv", x_BxPxE, table, preferred_element_type=jnp.float32)
        return self.layout(scores_BxPxV + self.bias[None, None, :], "batch", None, "vocab")

    def cross_entropy(
        self, hidden_BxPxD: Array, word_embedding_VxE: Array, labels_BxP: Array, weights_BxP: Array
    ) -> CrossEntropy:
        """Of the scores, which a device that works alone does not keep."""
        layout = self.layout
        if (
            layout.platform not in ("cpu", "gpu")
            or layout.parts("batch") * layout.parts("vocab") > 1
        ):
            return weighted_cross_entropy(
                self(hidden_BxPxD, word_embedding_VxE), labels_BxP, weights_BxP
            )
        x_BxPxE = self._transformed(hidden_BxPxD)
        x_NxE = x_BxPxE.reshape(-1, x_BxPxE.shape[-1])
        flat = (x.reshape(-1) for x in (labels_BxP, weights_BxP))
        return product_cross_entropy(x_NxE, word_embedding_VxE, self.bias, *flat)

    def _transformed(self, hidden: Array) -> Array:
        return self.layer_norm(ACTIVATIONS[self.config.hidden_act](self.transform(hidden)))
