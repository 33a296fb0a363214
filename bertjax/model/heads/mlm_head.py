"""The head for masked-token prediction."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.heads.cross_entropy import (
    CrossEntropy,
    product_cross_entropy,
    weighted_cross_entropy,
)
from bertjax.model.heads.fused_cross_entropy import fused_cross_entropy
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import ACTIVATIONS, Linear, Norm, constant, initial
from bertjax.model.layout import Layout
from bertjax.model.matrix import Matrix


class MlmHead(nn.Module):
    """Logits of masked tokens: a transform, then a product with a table of vectors of the words.

    The table is the word embedding of the encoder (tied weights), or one of the head's own. As
    `config` says, the transform or its norm may be missing, and the bias over the vocabulary.
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        width = c.hidden_size
        if c.mlm_transform:
            width = c.embedding_width
            has_bias = "mlm_transform" in c.biases
            axes, inner = ("embed", None), c.mlm_hidden_size or c.hidden_size
            if c.mlm_hidden_size:
                self.first = Linear(c, (c.hidden_size,), (inner,), axes, use_bias=has_bias)
            self.transform = Linear(c, (inner,), (width,), axes, use_bias=has_bias)
            if c.mlm_norm:
                self.layer_norm = Norm(c)
        if not c.mlm_tied:
            shape = (c.vocab_size, width)
            self.decoder = self.param("decoder", initial(c, "vocab", "embed"), shape, jnp.float32)
        if "mlm" in c.biases:
            self.bias = self.param("bias", constant(0.0, "vocab"), (c.vocab_size,), jnp.float32)

    def __call__(self, hidden_BxPxD: Array, word_embedding_VxE: Array) -> Array:
        """Return the logits, [B, P, V] float32."""
        table, x_BxPxE = self._table(word_embedding_VxE), self._transformed(hidden_BxPxD)
        if isinstance(table, Matrix):
            logits_BxPxV = table.row_products(x_BxPxE).astype(jnp.float32)
        else:
            logits_BxPxV = jnp.einsum(
                "bpe,ve->bpv",
                x_BxPxE,
                table.astype(self.config.dtype),
                preferred_element_type=jnp.float32,
            )
        if "mlm" in self.config.biases:
            logits_BxPxV = logits_BxPxV + self.bias[None, None, :]
        return self.layout(logits_BxPxV, "batch", None, "vocab")

    def cross_entropy(
        self, hidden_BxPxD: Array, word_embedding_VxE: Array, labels_BxP: Array, weights_BxP: Array
    ) -> CrossEntropy:
        """Return the weighted sums of the logits' cross-entropy."""
        c = self.config
        rows, words = labels_BxP.shape
        has_kernel = kernels.cross_entropy(c, (rows, words), self.layout)
        if not has_kernel and not self._works_alone():
            logits = self(hidden_BxPxD, word_embedding_VxE)
            return weighted_cross_entropy(logits, labels_BxP, weights_BxP, z_loss=c.z_loss)
        x_BxPxE = self._transformed(hidden_BxPxD)
        table = self._table(word_embedding_VxE)
        bias = self.bias if "mlm" in c.biases else jnp.zeros(c.vocab_size, jnp.float32)
        if has_kernel:
            return fused_cross_entropy(
                x_BxPxE,
                table,
                bias,
                labels_BxP,
                weights_BxP,
                z_loss=c.z_loss,
                layout=self.layout,
            )
        return product_cross_entropy(
            x_BxPxE.reshape(-1, x_BxPxE.shape[-1]),
            table,
            bias,
            labels_BxP.reshape(-1),
            weights_BxP.reshape(-1),
            z_loss=c.z_loss,
        )

    def _works_alone(self) -> bool:
        """Return True on a single CPU or GPU, where the logits need not be kept.

        Where no kernel computes it, TPUs and meshes use the plain form: the compiler fuses it well
        and knows how the vocabulary is sharded.
        """
        layout = self.layout
        is_uncut = layout.parts("batch") * layout.parts("vocab") == 1
        return layout.platform in ("cpu", "gpu") and is_uncut

    def _table(self, word_embedding_VxE: Array) -> Array:
        return word_embedding_VxE if self.config.mlm_tied else self.decoder

    def _transformed(self, hidden: Array) -> Array:
        c = self.config
        if not c.mlm_transform:
            return hidden
        # Without dropout, as the original (run_pretraining.py, get_masked_lm_output).
        if c.mlm_hidden_size:
            hidden = ACTIVATIONS[c.mlm_activation](self.first(hidden))
        active = ACTIVATIONS[c.mlm_activation](self.transform(hidden))
        return self.layer_norm(active) if c.mlm_norm else active
