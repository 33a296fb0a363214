"""Attention as one pure function, and the layer that feeds it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import fused_attention, kernels, random_bits
from bertjax.model.layers import ATTENDED, HEADS, Linear, dropout
from bertjax.model.layout import ANYWHERE, Layout, Names

QUERIES: Names = ("batch", "length", "heads", None)
KEYS: Names = ("batch", None, "heads", None)  # each device needs all keys of its rows


class Segments(NamedTuple):
    """Which key each query sees: those with its own number. Both [B, L] int32."""

    queries_BxL: Array
    keys_BxL: Array


def attention(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxLxHxK: Array,
    v_BxLxHxK: Array,
    segments: Segments,
    *,
    key: Array | None = None,
    layout: Layout = ANYWHERE,
) -> Array:
    """Scaled dot-product attention over all heads (arXiv 1706.03762, section 3.2.1), `[B, L, H, K]`, the type of `v`.

    A query that may look nowhere gets the mean of the values, so that padding stays finite. Softmax is in
    float32. `config.attention_probs_dropout_prob` falls on the probabilities, where a key is given.
    """
    if kernels.attention(config, q_BxLxHxK.shape[1], layout):
        return fused(config, q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, segments, key=key, layout=layout)
    scale = 1.0 / math.sqrt(q_BxLxHxK.shape[-1])
    logits = jnp.einsum("blhk,bmhk->bhlm", q_BxLxHxK * scale, k_BxLxHxK, preferred_element_type=jnp.float32)
    seen = segments.queries_BxL[:, None, :, None] == segments.keys_BxL[:, None, None, :]
    logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(v_BxLxHxK.dtype)
    rate, names = config.attention_probs_dropout_prob, ("batch", "heads", "length", None)
    probabilities = dropout(config, probabilities, rate, key, layout, names)
    return jnp.einsum("bhlm,bmhk->blhk", probabilities, v_BxLxHxK)


def fused(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    key: Array | None,
    layout: Layout,
    interpret: bool = False,
) -> Array:
    """`attention` by the TPU kernel; `interpret` runs it, slowly, where there is no TPU."""
    batch, _, num_heads, width = q.shape
    rate = 0.0 if key is None else config.attention_probs_dropout_prob

    def local(q: Array, k: Array, v: Array, queries: Array, keys: Array, words: Array, *firsts: Array) -> Array:
        seed = jnp.concatenate([words, *(numbers[:1] for numbers in firsts), jnp.full(1, num_heads, jnp.int32)])
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        static = (width, rate, interpret)
        return fused_attention.fused_attention(static, *flat, (queries, keys), seed).reshape(q.shape)

    rows: Names = ("batch", None)
    inputs: list[Names] = [KEYS, KEYS, KEYS, rows, rows, (None,), ("batch",), ("heads",)]
    numbers = jnp.arange(batch, dtype=jnp.int32), jnp.arange(num_heads, dtype=jnp.int32)
    return layout.per_device(local, inputs, KEYS)(q, k, v, *segments, random_bits.words(key), *numbers)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; `[B, L, D]` to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(self, x_BxLxD: Array, segments: Segments, *, deterministic: bool) -> Array:
        c, layout = self.config, self.layout
        width, heads = (c.hidden_size,), (c.num_attention_heads, c.hidden_size // c.num_attention_heads)

        feeds_kernel = kernels.used(c, layout)

        def project(name: str, names: Names) -> Array:
            projected = checkpoint_name(
                Linear(c, width, heads, ("embed", "heads", "kv"), feeds_kernel, name=name)(x_BxLxD), HEADS
            )
            return layout(projected.reshape(*x_BxLxD.shape[:2], *heads), *names)

        q, k, v = project("query", QUERIES), project("key", KEYS), project("value", KEYS)
        key = None if deterministic else self.make_rng("dropout")
        mixed = attention(c, q, k, v, segments, key=key, layout=layout)
        mixed = checkpoint_name(mixed.reshape(x_BxLxD.shape), ATTENDED)
        return Linear(c, heads, width, ("heads", "kv", "embed"), feeds_kernel, name="output")(mixed)
