"""The head for masked-token prediction."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.cross_entropy import CrossEntropy, product_cross_entropy, weighted_cross_entropy
from bertjax.model.layers import ACTIVATIONS, LayerNorm, Linear, constant
from bertjax.model.layout import Layout


class MlmHead(nn.Module):
    """Logits of masked tokens: a transform, then a product with the word embedding.

    The word embedding is that of the encoder (tied weights). For this product the head's only
    parameter of its own is a bias over the vocabulary.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        self.transform = Linear(c, (c.hidden_size,), (c.embedding_width,), ("embed", None))
        self.layer_norm = LayerNorm(c)
        self.bias = self.param("bias", constant(0.0, "vocab"), (c.vocab_size,), jnp.float32)

    def __call__(self, hidden_BxPxD: Array, word_embedding_VxE: Array) -> Array:
        """Return the logits, [B, P, V] float32."""
        table = word_embedding_VxE.astype(self.config.dtype)
        x_BxPxE = self._transformed(hidden_BxPxD)
        products_BxPxV = jnp.einsum(
            "bpe,ve->bpv", x_BxPxE, table, preferred_element_type=jnp.float32
        )
        return self.layout(products_BxPxV + self.bias[None, None, :], "batch", None, "vocab")

    def cross_entropy(
        self, hidden_BxPxD: Array, word_embedding_VxE: Array, labels_BxP: Array, weights_BxP: Array
    ) -> CrossEntropy:
        """Return the weighted sums of the logits' cross-entropy."""
        if not self._works_alone():
            logits = self(hidden_BxPxD, word_embedding_VxE)
            return weighted_cross_entropy(logits, labels_BxP, weights_BxP)
        x_BxPxE = self._transformed(hidden_BxPxD)
        x_NxE = x_BxPxE.reshape(-1, x_BxPxE.shape[-1])
        return product_cross_entropy(
            x_NxE, word_embedding_VxE, self.bias, labels_BxP.reshape(-1), weights_BxP.reshape(-1)
        )

    def _works_alone(self) -> bool:
        """Return True on a single CPU or GPU, where the logits need not be kept.

        On TPUs and meshes the plain form is used: the compiler fuses it well and knows how the
        vocabulary is sharded.
        """
        layout = self.layout
        is_uncut = layout.parts("batch") * layout.parts("vocab") == 1
        return layout.platform in ("cpu", "gpu") and is_uncut

    def _transformed(self, hidden: Array) -> Array:
        # Without dropout, as the original (run_pretraining.py, get_masked_lm_output).
        return self.layer_norm(ACTIVATIONS[self.config.hidden_act](self.transform(hidden)))
