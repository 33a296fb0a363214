"""The whole network as one Flax module: embeddings, encoder and heads."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.attention.attention import Segments
from bertjax.model.embeddings import Embeddings
from bertjax.model.encoder import Encoder
from bertjax.model.heads.cross_entropy import CrossEntropy
from bertjax.model.heads.mlm_head import MlmHead
from bertjax.model.heads.pooler import Pooler
from bertjax.model.heads.rtd_head import RtdHead
from bertjax.model.layers import Linear
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.types import Batch


class Encoded(NamedTuple):
    """The result of `encode`."""

    hidden_BxLxD: Array
    """The last layer's output, in `config.dtype`."""
    layers_NxBxLxD: Array | None
    """The output of every layer, first layer first, if requested; the last is `hidden_BxLxD`."""
    embedded_BxLxD: Array
    """The first layer's input: the embeddings after their layer norm and dropout."""


class Network(nn.Module):
    """Embeddings, encoder and heads; its methods are what `bertjax.model.functional` offers."""

    config: ModelConfig
    layout: Layout = ANYWHERE

    def setup(self) -> None:
        c = self.config
        self.embeddings = Embeddings(c, self.layout)
        self.encoder = Encoder(c, self.layout)
        if "pooler" in c.heads:
            self.pooler = Pooler(c)
        if "mlm" in c.heads:
            self.mlm = MlmHead(c, self.layout)
        if "nsp" in c.heads:
            self.nsp = Linear(c, (c.hidden_size,), (2,), ("embed", None))
        if "rtd" in c.heads:
            self.rtd = RtdHead(c)

    def encode(self, batch: Batch, *, deterministic: bool, keep_layers: bool) -> Encoded:
        """Return the hidden states; see `functional.encode`."""
        ids = jnp.asarray(batch["input_ids"])
        if "position_ids" in batch:
            positions = batch["position_ids"]
        else:
            positions = jnp.arange(ids.shape[-1])[None, :]
        token_types = batch["segment_ids"] if "segment_ids" in batch else jnp.zeros_like(ids)
        mask = batch["input_mask"] if "input_mask" in batch else jnp.ones_like(ids)
        embedded = self.embeddings(
            ids, token_types, positions, deterministic=deterministic, mask_BxL=jnp.asarray(mask)
        )
        packs = jnp.asarray(batch["pack_ids"]) if "pack_ids" in batch else jnp.ones_like(ids)
        # Keys at padding get segment -1, which no query has.
        segments = Segments(packs, jnp.where(jnp.asarray(mask) > 0, packs, -1))
        hidden, layers = self.encoder(
            embedded,
            segments,
            jnp.asarray(positions),
            deterministic=deterministic,
            keep_layers=keep_layers,
            last_BxL=self._last_seen(batch, ids),
        )
        return Encoded(hidden, layers, embedded)

    def _last_seen(self, batch: Batch, ids: Array) -> Array | None:
        """Return the last index that each query sees, int32 [B, L]; None where no row is causal."""
        if "causal" not in batch:
            return None
        check(
            self.config.kernels == "xla",
            where="model.kernels",
            found=self.config.kernels,
            expected="xla, for causal rows",
        )
        own_1xL = jnp.arange(ids.shape[1])[None, :]
        return jnp.where(jnp.asarray(batch["causal"]) > 0, own_1xL, ids.shape[1] - 1)

    def pool(
        self, hidden_BxLxD: Array, positions_BxS: Array | None, input_mask_BxL: Array | None
    ) -> Array:
        """Return the sentence vectors; see `functional.pool`."""
        if positions_BxS is not None:
            return self.pooler(_at(hidden_BxLxD, positions_BxS))
        if self.config.pooling == "mean":
            return self.pooler(_mean(hidden_BxLxD, input_mask_BxL))
        # The original BERT's pooler: the first token is [CLS] (modeling.py, BertModel).
        return self.pooler(hidden_BxLxD[:, 0])

    def pool_tokens(self, hidden_BxLxD: Array) -> Array:
        """Return the pooler's function of each hidden state; see `functional.pool_tokens`."""
        return self.pooler(hidden_BxLxD)

    def mlm_logits(self, hidden_BxLxD: Array, positions_BxP: Array | None) -> Array:
        """Return the logits of words, at all positions without `positions_BxP`."""
        hidden = self._read(hidden_BxLxD, positions_BxP)
        return self.mlm(hidden, self.embeddings.word.embedding)

    def mlm_cross_entropy(
        self, hidden_BxLxD: Array, positions_BxP: Array, labels_BxP: Array, weights_BxP: Array
    ) -> CrossEntropy:
        """Return the cross-entropy of masked words; see `functional.mlm_cross_entropy`."""
        hidden = self._read(hidden_BxLxD, positions_BxP)
        table = self.embeddings.word.embedding
        return self.mlm.cross_entropy(hidden, table, labels_BxP, weights_BxP)

    def _read(self, hidden_BxLxD: Array, positions_BxP: Array | None) -> Array:
        """Return the hidden states from which the words at the positions are predicted, [B, P, D].

        Without positions it is those of all words, [B, L, D].
        """
        if not self.config.mlm_shifted:
            return hidden_BxLxD if positions_BxP is None else _at(hidden_BxLxD, positions_BxP)
        if positions_BxP is None:
            # Nothing is before the first word, whose own state stands in.
            return jnp.concatenate([hidden_BxLxD[:, :1], hidden_BxLxD[:, :-1]], axis=1)
        return _at(hidden_BxLxD, jnp.maximum(jnp.asarray(positions_BxP) - 1, 0))

    def nsp_logits(self, pooled: Array) -> Array:
        """Return the logits of the sentence head, float32."""
        # Float32 for the softmax, whatever the type of the product.
        return self.nsp(pooled).astype(jnp.float32)

    def rtd_logits(self, hidden_BxLxD: Array) -> Array:
        """Return the logits of the head for replaced tokens; see `functional.rtd_logits`."""
        return self.rtd(hidden_BxLxD)

    def all(self, batch: Batch) -> None:
        """Use every part of the model, so that `init` makes its parameters."""
        heads = self.config.heads
        hidden = self.encode(batch, deterministic=True, keep_layers=False).hidden_BxLxD
        if "mlm" in heads:
            self.mlm_logits(hidden, None)
        if "rtd" in heads:
            self.rtd_logits(hidden)
        if "pooler" in heads:
            pooled = self.pool(hidden, None, None)
            if "nsp" in heads:
                self.nsp_logits(pooled)


def _at(hidden_BxLxD: Array, positions_BxP: Array) -> Array:
    """Return the hidden states at the positions, [B, P, D]."""
    # A gather from the flattened batch would make every device fetch the whole batch.
    return jnp.take_along_axis(hidden_BxLxD, jnp.asarray(positions_BxP)[:, :, None], axis=1)


def _mean(hidden_BxLxD: Array, input_mask_BxL: Array | None) -> Array:
    """Return the mean of the hidden states that are not padding, [B, D], computed in float32."""
    if input_mask_BxL is None:
        input_mask_BxL = jnp.ones(hidden_BxLxD.shape[:2])
    weights = jnp.asarray(input_mask_BxL, jnp.float32)[:, :, None]
    total = jnp.sum(hidden_BxLxD.astype(jnp.float32) * weights, axis=1)
    # A row of padding alone has no token; its mean is 0 and not 0 / 0.
    return (total / jnp.maximum(jnp.sum(weights, axis=1), 1)).astype(hidden_BxLxD.dtype)
