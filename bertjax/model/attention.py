"""Attention as one pure function, and the layer that feeds it."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import dense, dropout
from bertjax.model.layout import Layout


def attention(
    q_BxLxHxK: Array,
    k_BxLxHxK: Array,
    v_BxLxHxK: Array,
    *,
    mask: Array,
    dropout_rate: float = 0.0,
    key: Array | None = None,
) -> Array:
    """Scaled dot-product attention over all heads (arXiv 1706.03762, section 3.2.1).

    `mask` is boolean and broadcasts to `[B, H, L, L]` (query, key): True where a query may
    look. A query that may look nowhere gets the mean of the values, so that padding stays
    finite. Softmax is in float32; the result `[B, L, H, K]` has the type of `v`. Dropout
    falls on the probabilities, and only where a key is given.
    """
    scale = 1.0 / math.sqrt(q_BxLxHxK.shape[-1])
    logits = jnp.einsum("blhk,bmhk->bhlm", q_BxLxHxK * scale, k_BxLxHxK, preferred_element_type=jnp.float32)
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(v_BxLxHxK.dtype)
    probabilities = dropout(probabilities, dropout_rate, key)
    return jnp.einsum("bhlm,bmhk->blhk", probabilities, v_BxLxHxK)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; `[B, L, D]` to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x_BxLxD: Array, mask: Array, *, deterministic: bool) -> Array:
        c, layout = self.config, self.layout
        heads = (c.num_attention_heads, c.hidden_size // c.num_attention_heads)
        q, k, v = (dense(c, heads, ("embed", "heads", "kv"), name)(x_BxLxD) for name in ("query", "key", "value"))
        # Each device asks for its own stretch of a row, of all of it.
        q = layout(q, "batch", "length", "heads", None)
        k, v = (layout(x, "batch", None, "heads", None) for x in (k, v))
        key = None if deterministic else self.make_rng("dropout")
        mixed = attention(q, k, v, mask=mask, dropout_rate=c.attention_probs_dropout_prob, key=key)
        return dense(c, c.hidden_size, ("heads", "kv", "embed"), "output", inputs=2)(mixed)
