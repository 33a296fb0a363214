"""Attention as one pure function.

In global attention a query sees all keys of its row, in local attention only keys within a window.
Both have three implementations; the row length and the device decide which one is used: a kernel,
the whole matrix of scores, or, if this matrix is too large to keep, parts of it one after another
(`long_attention.py`).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import random_bits
from bertjax.model.attention import long_attention
from bertjax.model.attention.relative_attention import RelativeVectors, relative_scores
from bertjax.model.kernels import gpu_attention, tpu_attention
from bertjax.model.kernels import selection as kernels
from bertjax.model.layers import dropout
from bertjax.model.layout import ANYWHERE, Layout, Names

QUERIES: Names = ("batch", "length", "heads", None)
KEYS: Names = ("batch", None, "heads", None)  # each device needs all keys of its rows


class Segments(NamedTuple):
    """Segment numbers of queries and keys: a query sees only keys with its own number.

    Both arrays are int32 [B, L]. In packed rows the number is that of the input in the row.
    """

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
    is_global: bool = True,
    layout: Layout = ANYWHERE,
    relative: RelativeVectors | None = None,
    last_BxL: Array | None = None,
) -> Array:
    """Scaled dot-product attention over all heads (arXiv 1706.03762, section 3.2.1).

    Returns [B, L, H, K] in the dtype of `v`. Softmax is computed in float32. If a `key` is given,
    dropout with the rate `config.attention_probs_dropout_prob` is applied to the probabilities. If
    `is_global` is False, each query sees only keys at most `config.local_attention` / 2 positions
    away. The result for a query that sees no key is a mean of values, so that outputs at padding
    are finite. `relative` adds scores of relative positions. With `last_BxL`, int32, each query
    sees only keys up to that index of the row: its own index in causal attention. No kernel has it.
    """
    if relative is not None:
        return scored(
            config,
            q_BxLxHxK,
            k_BxLxHxK,
            v_BxLxHxK,
            segments,
            key=key,
            layout=layout,
            relative=relative,
            last_BxL=last_BxL,
        )
    attend = _global_attention if is_global else _local_attention
    qkv = q_BxLxHxK, k_BxLxHxK, v_BxLxHxK
    return attend(config, *qkv, segments, key=key, layout=layout, last=last_BxL)


def _global_attention(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    key: Array | None,
    layout: Layout,
    last: Array | None,
) -> Array:
    """Attention to all keys of the row; row length and device select the implementation."""
    if kernels.attention(config, q.shape[1], layout):
        return fused(config, q, k, v, segments, key=key, layout=layout, platform=layout.platform)
    if not _is_chunked(config, q.shape[1], layout):
        return scored(config, q, k, v, segments, key=key, layout=layout, last_BxL=last)

    def chunk(q: Array, queries: Array, last: Array | None, key: Array | None) -> Array:
        seen = Segments(queries, segments.keys_BxL)
        return scored(config, q, k, v, seen, key=key, layout=layout, last_BxL=last)

    # The chunks are recomputed in the backward pass. If their results were kept, a step of BERT
    # base with one row of 8,192 ids would not fit a v5e; with recomputation its activations take
    # 4.7 GB.
    attend = jax.checkpoint(partial(long_attention.chunked_attention, chunk))
    return attend(q, segments.queries_BxL, last, key)


def _is_chunked(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if global attention in rows of this length is computed in chunks of queries."""
    if _is_symbolic(length) or length < long_attention.CHUNKED_FROM:
        return False
    return not kernels.attention(config, length, layout)


def _local_attention(
    config: ModelConfig,
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    key: Array | None,
    layout: Layout,
    last: Array | None,
) -> Array:
    """Attention to the keys in a window; row length and device select the implementation."""
    length, window = q.shape[1], config.local_attention
    if kernels.local_attention(config, length, layout):
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
    # In blocks, each query has 3 x window / 2 scores. In shorter rows the whole matrix has fewer.
    # Exported programs have one form for rows of any length: blocks, for the sake of the long ones.
    if not _is_symbolic(length) and length <= 3 * window // 2:
        return scored(
            config, q, k, v, segments, window=window, key=key, layout=layout, last_BxL=last
        )
    return long_attention.local_attention(
        config, q, k, v, *segments, key=key, layout=layout, last_BxL=last
    )


def _is_symbolic(length: object) -> bool:
    """Return True if the length is symbolic, as in exported programs for any row length."""
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
    relative: RelativeVectors | None = None,
    last_BxL: Array | None = None,
) -> Array:
    """`attention` with the whole matrix of scores, [B, H, L, M].

    With a `window`, a query sees only keys at most `window` / 2 positions away.
    """
    scores = attention_scores(config, q_BxLxHxK, k_BxMxHxK, relative, layout)
    seen = segments.queries_BxL[:, None, :, None] == segments.keys_BxL[:, None, None, :]
    if window:
        queries = jnp.arange(q_BxLxHxK.shape[1])
        keys = jnp.arange(k_BxMxHxK.shape[1])
        # Both ends belong to the window, as in ModernBERT's (arXiv 2412.13663).
        is_near = jnp.abs(queries[:, None] - keys[None, :]) <= window // 2
        seen &= is_near[None, None, :, :]
    if last_BxL is not None:
        keys = jnp.arange(k_BxMxHxK.shape[1])
        seen &= keys[None, None, None, :] <= last_BxL[:, None, :, None]
    # The lowest float32 is used instead of -inf: softmax of a row with only -inf is NaN (0 / 0).
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(v_BxMxHxK.dtype)
    # Dropout comes after the softmax and nothing is normalized again, as in the original BERT
    # (github.com/google-research/bert, modeling.py, attention_layer).
    rate, names = config.attention_probs_dropout_prob, ("batch", "heads", "length", None)
    probabilities = dropout(config, probabilities, rate, key, layout, names)
    return jnp.einsum("bhlm,bmhk->blhk", probabilities, v_BxMxHxK)


def attention_scores(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxMxHxK: Array,
    relative: RelativeVectors | None,
    layout: Layout,
) -> Array:
    """Return the scores before the softmax, [B, H, L, M] float32, of all pairs, also unseen ones.

    The arguments are those of `scored`.
    """
    # The queries are scaled instead of the scores, because there are fewer queries.
    scale = 1.0 / math.sqrt(q_BxLxHxK.shape[-1])
    if relative is not None:
        # Three kinds of scores are added up (arXiv 2006.03654, equation 4).
        scale /= math.sqrt(3)
    q_BxLxHxK = q_BxLxHxK * scale
    # Scores are summed in float32, so that the softmax does not see bfloat16's rounding of large
    # sums.
    scores = jnp.einsum("blhk,bmhk->bhlm", q_BxLxHxK, k_BxMxHxK, preferred_element_type=jnp.float32)
    if relative is not None:
        queries_RxHxK = relative.queries_RxHxK * scale
        vectors = RelativeVectors(queries_RxHxK, relative.keys_RxHxK)
        added = relative_scores(config, q_BxLxHxK, k_BxMxHxK, vectors)
        scores += layout(added, "batch", "heads", "length", None)
    return scores


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
    """`attention` with the kernels for `platform`, tpu or gpu.

    With a `window`, a query sees only keys at most `window` / 2 positions away; only the gpu
    kernels support it. `interpret` runs the kernels in Pallas's interpreter, which is slow but
    works without such a device.
    """
    batch, _, num_heads, width = q.shape
    rate = 0.0 if key is None else config.attention_probs_dropout_prob

    def local(
        q: Array,
        k: Array,
        v: Array,
        queries: Array,
        keys: Array,
        words: Array,
        rows: Array,
        heads: Array,
    ) -> Array:
        """Attention for one device's rows and heads; `rows` and `heads` are their numbers."""
        # The kernel sees a part of the rows and heads. With their numbers it draws the bits of the
        # whole array, so that a mesh and gradient accumulation do not change the masks.
        seed = random_bits.score_seed(words, heads, num_heads, rows)
        if platform == "gpu":
            gpu_static = gpu_attention.Static(rate, window, interpret)
            return gpu_attention.gpu_attention(gpu_static, q, k, v, (queries, keys), seed)
        tpu_static = tpu_attention.Static(width, rate, interpret)
        # The TPU kernel's blocks are 128 lanes wide, which may be several heads side by side.
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        mixed = tpu_attention.tpu_attention(tpu_static, *flat, (queries, keys), seed)
        return mixed.reshape(q.shape)

    per_row: Names = ("batch", None)
    inputs: list[Names] = [KEYS, KEYS, KEYS, per_row, per_row, (None,), ("batch",), ("heads",)]
    # Arrays of numbers and not the device's index: they are cut as the rows and heads are, on any
    # mesh.
    row_numbers = layout.row_numbers(batch)
    head_numbers = jnp.arange(num_heads, dtype=jnp.int32)
    run = layout.per_device(local, inputs, KEYS)
    return run(q, k, v, *segments, random_bits.seed_words(key), row_numbers, head_numbers)
