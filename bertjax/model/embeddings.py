"""The embeddings: words, positions and token types, added up and normalized."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.layers import Linear, Norm, dropout, initial
from bertjax.model.layout import ANYWHERE, HIDDEN, Layout
from bertjax.model.matrix import Matrix


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalized; `[B, L]` ids to `[B, L, D]`.

    As `config` says, the positions, the token types and the norm may be missing. If
    `embedding_size` is set, the embeddings have this width and are projected to the hidden size
    (ALBERT, arXiv 1909.11942, section 3.1).
    """

    config: ModelConfig
    layout: Layout

    def setup(self) -> None:
        c = self.config
        # In float32, because the sum is first normalized and only then rounded to `config.dtype`.
        table = partial(
            nn.Embed, features=c.embedding_width, dtype=jnp.float32, param_dtype=jnp.float32
        )
        init_words = initial(c, "vocab", "embed")
        # These two have few rows, so they are cut along their width alone.
        init_others = initial(c, None, "embed")
        self.word = table(c.vocab_size, embedding_init=init_words)
        if c.positions == "learned":
            self.position = table(c.max_position_embeddings, embedding_init=init_others)
        if c.type_vocab_size:
            self.token_type = table(c.type_vocab_size, embedding_init=init_others)
        if c.embedding_norm:
            self.layer_norm = Norm(c)
        if c.embedding_size:
            self.projection = Linear(c, (c.embedding_size,), (c.hidden_size,), (None, "embed"))

    def __call__(
        self,
        input_ids: Array,
        segment_ids: Array,
        position_ids: Array,
        *,
        deterministic: bool,
        mask_BxL: Array | None = None,
    ) -> Array:
        """Return the embeddings; `mask_BxL`, 0 at padding, where they may get noise."""
        c, layout = self.config, self.layout
        # The layout makes the compiler gather the table from the devices before the lookup.
        # Otherwise it would move the whole batch between devices.
        words = jax.tree.map(lambda x: layout(x, "vocab", None), self.word.embedding)
        if isinstance(words, Matrix):
            summed = words.rows(input_ids)
        else:
            summed = jnp.take(words, input_ids, axis=0)
        if c.embedding_noise and mask_BxL is not None and not deterministic:
            summed = summed + embedding_noise(c, mask_BxL, self.make_rng("dropout"), layout)
        if c.positions == "learned":
            summed = summed + _vectors(self.position, position_ids + c.position_offset)
        if c.positions == "sinusoidal":
            summed = summed + sinusoids(position_ids + c.position_offset, c.embedding_width)
        if c.type_vocab_size:
            summed = summed + _vectors(self.token_type, segment_ids)
        summed = layout(summed, *HIDDEN)
        has_dropout = "embeddings" in c.dropout_places and not deterministic
        key = self.make_rng("dropout") if has_dropout else None
        # Norm, then dropout, then the projection: the first two are the original BERT's order
        # (modeling.py, layer_norm_and_dropout), the last is ALBERT's.
        normal = self.layer_norm(summed) if c.embedding_norm else summed.astype(c.dtype)
        embedded = dropout(c, normal, c.hidden_dropout_prob, key, layout, HIDDEN)
        if not c.embedding_size:
            return embedded
        return layout(self.projection(embedded), *HIDDEN)


def _vectors(table: nn.Embed, ids: Array) -> Array:
    vectors: Array | Matrix = table.embedding
    return vectors.rows(ids) if isinstance(vectors, Matrix) else table(ids)


def embedding_noise(
    config: ModelConfig, mask_BxL: Array, key: Array, layout: Layout = ANYWHERE
) -> Array:
    """Return what training adds to the word embeddings, float32 [B, L, E]; 0 at padding.

    With n tokens in a row it is r * config.embedding_noise / sqrt(n E), where each r is uniform on
    [-1, 1) (arXiv 2310.05914, algorithm 1) or normal of variance 1. `mask_BxL` is 0 at padding.
    """
    width = config.embedding_width
    is_token_BxL = (mask_BxL > 0).astype(jnp.float32)
    # A row of padding alone has no token: its noise is 0 and not 0 / 0.
    tokens_Bx1 = jnp.maximum(jnp.sum(is_token_BxL, axis=1, keepdims=True), 1)
    scale_BxL = config.embedding_noise / jnp.sqrt(tokens_Bx1 * width) * is_token_BxL
    # By the row's number in the batch, so that neither a mesh nor accumulation changes the noise.
    words = random_bits.threefry_words(key, (*mask_BxL.shape, width), layout)
    draws_BxLxE = 2 * random_bits.uniform(words) - 1
    if config.embedding_noise_kind == "gaussian":
        # As `jax.random.normal`: at -1 the inverse would be infinite.
        above = jnp.maximum(draws_BxLxE, np.nextafter(np.float32(-1), np.float32(0)))
        draws_BxLxE = math.sqrt(2) * jax.lax.erf_inv(above)
    return layout(draws_BxLxE * scale_BxL[:, :, None], *HIDDEN)


def sinusoids(positions_BxL: Array, width: int) -> Array:
    """Return the vectors of the positions, float32 [B, L, width] (arXiv 1706.03762, section 3.5).

    Element 2 i is the sine of position / 10000^(2 i / width), element 2 i + 1 its cosine.
    """
    angles = positions_BxL[:, :, None] * jnp.asarray(sinusoid_frequencies(width))[None, None, :]
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions_BxL.shape, -1)[:, :, :width]


def sinusoid_frequencies(width: int) -> np.ndarray:
    """Return what the angle of each pair of `sinusoids` grows by per position, float32."""
    return (10_000.0 ** (-np.arange(0, width, 2) / width)).astype(np.float32)
