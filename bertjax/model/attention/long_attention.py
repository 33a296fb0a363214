"""Attention for long rows, with memory that grows linearly with the row length.

Local attention is computed for blocks of queries with the keys around them, global attention for
chunks of queries with all keys. Both give the same results as the whole matrix of scores, except
for rounding; but dropout removes other probabilities.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import dropout
from bertjax.model.layout import Layout, Names

# At 2,048 ids chunks take a quarter of the memory and less time; at 512 they take more time
# (docs/benchmarks.md, "Attention by length").
CHUNKED_FROM = 2048  # row length from which the matrix of probabilities is too large to keep
CHUNK = 512  # queries at a time, or fewer


def local_attention(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxLxHxK: Array,
    v_BxLxHxK: Array,
    queries_BxL: Array,
    keys_BxL: Array,
    *,
    key: Array | None,
    layout: Layout,
    last_BxL: Array | None = None,
) -> Array:
    """Attention to keys at most W = `config.local_attention` / 2 positions away, `[B, L, H, K]`.

    The row is divided into N blocks of W queries. Each block attends to the keys of its own and its
    two neighbouring blocks, so a head needs 3 W L products instead of L^2. `queries_BxL` and
    `keys_BxL` are the fields of `Segments`. `last_BxL` is as in `attention.attention`.
    """
    reach = config.local_attention // 2
    batch, length, heads, width = q_BxLxHxK.shape
    parts = layout.parts("length")
    # Each device that shares the row must have the same number of blocks, so the row is padded.
    count = -(-length // (reach * parts)) * parts

    def cut(x: Array, fill: int) -> Array:
        """Return the blocks, [B, N, W, ...]."""
        rest = [(0, 0)] * (x.ndim - 2)
        padded = jnp.pad(x, [(0, 0), (0, count * reach - length), *rest], constant_values=fill)
        return padded.reshape(batch, count, reach, *x.shape[2:])

    def with_neighbours(x: Array, fill: int) -> Array:
        """Return each block between its neighbours, [B, N, 3 W, ...]."""
        rest = [(0, 0)] * (x.ndim - 2)
        wide = jnp.pad(x, [(0, 0), (1, 1), *rest], constant_values=fill)
        return jnp.concatenate([wide[:, :-2], x, wide[:, 2:]], axis=2)

    names: Names = ("batch", "length", None, "heads", None)

    def keys_of(x: Array) -> Array:
        return layout(with_neighbours(layout(cut(x, 0), *names), 0), *names)

    q = layout(cut(q_BxLxHxK * (1.0 / math.sqrt(width)), 0), *names)
    k, v = keys_of(k_BxLxHxK), keys_of(v_BxLxHxK)
    scores = jnp.einsum("bnqhk,bnmhk->bhnqm", q, k, preferred_element_type=jnp.float32)
    # Keys beyond the row's ends get segment -1, which no query has.
    query_segments = cut(queries_BxL, 0)[:, :, :, None]
    key_segments = with_neighbours(cut(keys_BxL, -1), -1)[:, :, None, :]
    seen = query_segments == key_segments
    distances = jnp.arange(3 * reach)[None, :] - reach - jnp.arange(reach)[:, None]
    seen &= (jnp.abs(distances) <= reach)[None, None, :, :]
    if last_BxL is not None:
        # A block's first key is the first one of the block before it.
        firsts = (jnp.arange(count) - 1) * reach
        indices_NxM = firsts[:, None] + jnp.arange(3 * reach)[None, :]
        seen &= indices_NxM[None, :, None, :] <= cut(last_BxL, 0)[:, :, :, None]
    # The least number and not -inf, for the reason that `attention.scored` gives.
    scores = jnp.where(seen[:, None, :, :, :], scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    rate, axes = config.attention_probs_dropout_prob, ("batch", "heads", "length", None, None)
    probabilities = dropout(config, probabilities, rate, key, layout, axes)
    mixed = jnp.einsum("bhnqm,bnmhk->bnqhk", probabilities, v)
    return mixed.reshape(batch, count * reach, heads, width)[:, :length]


def chunked_attention(
    attend: Callable[[Array, Array, Array | None, Array | None], Array],
    q: Array,
    queries: Array,
    last: Array | None,
    key: Array | None,
) -> Array:
    """Call `attend(q, queries, last, key)` for one chunk of queries after another.

    Returns [B, L, H, K], as `q`. `queries` is [B, L], as in `Segments`, and `last` [B, L] or None,
    as in `attention.attention`. Each chunk is recomputed in the backward pass.
    """
    batch, length = queries.shape
    # Chunks of one size, since `lax.map` runs one program for all: so their number divides the
    # length.
    fewest = -(-length // CHUNK)
    count = next(n for n in range(fewest, length + 1) if length % n == 0)

    def chunk(numbered: tuple[Array, Array, Array, Array | None]) -> Array:
        number, q, queries, last = numbered
        # A key for each chunk: with one for all, the chunks would share dropout's masks.
        return attend(q, queries, last, None if key is None else jax.random.fold_in(key, number))

    def split(x: Array) -> Array:
        # The queries of a chunk are spread over the whole row, so that every device that shares the
        # row has a part of every chunk.
        return jnp.moveaxis(x.reshape(batch, -1, count, *x.shape[2:]), 2, 0)

    chunks = split(q), split(queries), None if last is None else split(last)
    mixed = jax.lax.map(jax.checkpoint(chunk), (jnp.arange(count), *chunks))
    return jnp.moveaxis(mixed, 0, 2).reshape(q.shape)
