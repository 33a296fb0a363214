"""Attention as one pure function, and the layer that feeds it."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import long_attention, random_bits
from bertjax.model.kernels import gpu_attention, tpu_attention
from bertjax.model.kernels import selection as kernels
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
    everywhere: Array | bool = True,
    layout: Layout = ANYWHERE,
) -> Array:
    """Scaled dot-product attention over all heads (arXiv 1706.03762, section 3.2.1), `[B, L, H,
    K]`, the type of `v`.

    A query that may look nowhere gets a mean of values, so that padding stays finite. Softmax is in
    float32. `config.attention_probs_dropout_prob` falls on the probabilities, where a key is given.
    Unless `everywhere`, a bool [], keys are seen up to `config.local_attention` / 2 places away.
    """
    arrays = (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, segments)
    whole = partial(_whole, config, key=key, layout=layout)
    near = partial(_near, config, key=key, layout=layout)
    if isinstance(everywhere, bool):
        return (whole if everywhere else near)(*arrays)
    # Kept for the backward pass would be what both have, of every layer.
    keeps_little = _in_chunks(config, q_BxLxHxK.shape[1], layout)
    return jax.lax.cond(
        everywhere, whole if keeps_little else jax.checkpoint(whole), jax.checkpoint(near), *arrays
    )


def _whole(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    key: Array | None,
    layout: Layout,
) -> Array:
    """Attention to all keys, as suits the length and the device."""
    if kernels.attention(config, q.shape[1], layout):
        return fused(config, q, k, v, segments, key=key, layout=layout, platform=layout.platform)
    if not _in_chunks(config, q.shape[1], layout):
        return scored(config, q, k, v, segments, key=key, layout=layout)

    def some(q: Array, queries: Array, key: Array | None) -> Array:
        return scored(config, q, k, v, Segments(queries, segments.keys_BxL), key=key, layout=layout)

    # Without it a step of BERT base with one row of 8,192 ids does not fit a v5e; with it
    # activations are 4.7 GB.
    return jax.checkpoint(partial(long_attention.chunked, some))(q, segments.queries_BxL, key)


def _in_chunks(config: ModelConfig, length: Any, layout: Layout) -> bool:
    """Whether whole rows of this length are worked some queries at a time."""
    if _is_free(length) or length < long_attention.CHUNKED_FROM:
        return False
    return not kernels.attention(config, length, layout)


def _near(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    key: Array | None,
    layout: Layout,
) -> Array:
    """Attention to near keys: by whole matrices of scores where blocks would be no smaller."""
    window = config.local_attention
    if kernels.local_attention(config, q.shape[1], layout):
        return fused(
            config,
            q,
            k,
            v,
            segments,
            window=window,
            key=key,
            layout=layout,
            platform=layout.platform,
        )
    if _is_free(q.shape[1]) or q.shape[1] <= 3 * window // 2:
        return scored(config, q, k, v, segments, window=window, key=key, layout=layout)
    return long_attention.local(config, q, k, v, *segments, key=key, layout=layout)


def _is_free(length: Any) -> bool:
    """Whether a row's length is left open, in a program that is exported."""
    return not isinstance(length, int)


def scored(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxMxHxK: Array,
    v_BxMxHxK: Array,
    segments: Segments,
    *,
    window: int = 0,
    key: Array | None = None,
    layout: Layout = ANYWHERE,
) -> Array:
    """`attention` by whole matrices of scores, [B, H, L, M]; with a `window`, to keys up to half of
    it away.
    """
    scale = 1.0 / math.sqrt(q_BxLxHxK.shape[-1])
    logits = jnp.einsum(
        "blhk,bmhk->bhlm", q_BxLxHxK * scale, k_BxMxHxK, preferred_element_type=jnp.float32
    )
    seen = segments.queries_BxL[:, None, :, None] == segments.keys_BxL[:, None, None, :]
    if window:
        queries, keys = (jnp.arange(x.shape[1]) for x in (q_BxLxHxK, k_BxMxHxK))
        seen &= (jnp.abs(queries[:, None] - keys[None, :]) <= window // 2)[None, None, :, :]
    logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(v_BxMxHxK.dtype)
    rate, names = config.attention_probs_dropout_prob, ("batch", "heads", "length", None)
    probabilities = dropout(config, probabilities, rate, key, layout, names)
    return jnp.einsum("bhlm,bmhk->blhk", probabilities, v_BxMxHxK)


def fused(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    window: int = 0,
    key: Array | None,
    layout: Layout,
    platform: str,
    interpret: bool = False,
) -> Array:
    """`attention` by the kernels for `platform`, tpu or gpu; `interpret` runs them, slowly, where
    there is none.

    With a `window`, which only those for gpu have, to keys up to half of it away.
    """
    batch, _, num_heads, width = q.shape
    rate = 0.0 if key is None else config.attention_probs_dropout_prob

    def local(
        q: Array, k: Array, v: Array, queries: Array, keys: Array, words: Array, *firsts: Array
    ) -> Array:
        seed = jnp.concatenate(
            [words, *(numbers[:1] for numbers in firsts), jnp.full(1, num_heads, jnp.int32)]
        )
        if platform == "gpu":
            how = gpu_attention.Static(rate, window, interpret)
            return gpu_attention.gpu_attention(how, q, k, v, (queries, keys), seed)
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        return tpu_attention.tpu_attention(
            (width, rate, interpret), *flat, (queries, keys), seed
        ).reshape(q.shape)

    rows: Names = ("batch", None)
    inputs: list[Names] = [KEYS, KEYS, KEYS, rows, rows, (None,), ("batch",), ("heads",)]
    numbers = jnp.arange(batch, dtype=jnp.int32), jnp.arange(num_heads, dtype=jnp.int32)
    return layout.per_device(local, inputs, KEYS)(
        q, k, v, *segments, random_bits.words(key), *numbers
    )


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; `[B, L, D]` to `[B, L, D]`."""

    config: ModelConfig
    layout: Layout

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, segments: Segments, everywhere: Array | bool, *, deterministic: bool
    ) -> Array:
        c, layout = self.config, self.layout
        width, heads = (
            (c.hidden_size,),
            (c.num_attention_heads, c.hidden_size // c.num_attention_heads),
        )

        feeds_kernel = kernels.on_tpu(c, layout)

        def project(name: str, names: Names) -> Array:
            projected = checkpoint_name(
                Linear(c, width, heads, ("embed", "heads", "kv"), feeds_kernel, name=name)(x_BxLxD),
                HEADS,
            )
            return layout(projected.reshape(*x_BxLxD.shape[:2], *heads), *names)

        q, k, v = project("query", QUERIES), project("key", KEYS), project("value", KEYS)
        key = None if deterministic else self.make_rng("dropout")
        mixed = attention(c, q, k, v, segments, key=key, everywhere=everywhere, layout=layout)
        mixed = checkpoint_name(mixed.reshape(x_BxLxD.shape), ATTENDED)
        return Linear(c, heads, width, ("heads", "kv", "embed"), feeds_kernel, name="output")(mixed)
