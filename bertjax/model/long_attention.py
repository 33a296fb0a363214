"""Attention over long rows, in memory linear in their length: a window of keys for each query, or
all keys for some queries at a time.

To rounding, both give what whole matrices of scores would; dropout falls on other probabilities.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model.layers import dropout
from bertjax.model.layout import Layout, Names

CHUNKED_FROM = (
    2048  # ids in a row: from here on scores and probabilities of a whole row are too large to keep
)
CHUNK = 512  # queries at a time, or a few more


def local(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxLxHxK: Array,
    v_BxLxHxK: Array,
    queries_BxL: Array,
    keys_BxL: Array,
    *,
    key: Array | None,
    layout: Layout,
) -> Array:
    """Attention to keys at most W = `config.local_attention` / 2 places away, `[B, L, H, K]`.

    The row is cut into blocks of W queries, and each block meets its own keys and its two
    neighbours': 3 W L products a head in place of L^2. `queries_BxL` and `keys_BxL` are segments,
    as in `Segments`.
    """
    reach = config.local_attention // 2
    batch, length, heads, width = q_BxLxHxK.shape
    parts = layout.parts("length")
    count = -(-length // (reach * parts)) * parts

    def cut(x: Array, fill: int) -> Array:
        """[B, N, W, ...], N blocks."""
        rest = [(0, 0)] * (x.ndim - 2)
        padded = jnp.pad(x, [(0, 0), (0, count * reach - length), *rest], constant_values=fill)
        return padded.reshape(batch, count, reach, *x.shape[2:])

    def around(x: Array, fill: int) -> Array:
        """[B, N, 3 W, ...]: each block between its neighbours."""
        rest = [(0, 0)] * (x.ndim - 2)
        wide = jnp.pad(x, [(0, 0), (1, 1), *rest], constant_values=fill)
        return jnp.concatenate([wide[:, :-2], x, wide[:, 2:]], axis=2)

    names: Names = ("batch", "length", None, "heads", None)
    q = layout(cut(q_BxLxHxK * (1.0 / math.sqrt(width)), 0), *names)
    k, v = (layout(around(layout(cut(x, 0), *names), 0), *names) for x in (k_BxLxHxK, v_BxLxHxK))
    scores = jnp.einsum("bnqhk,bnmhk->bhnqm", q, k, preferred_element_type=jnp.float32)
    seen = cut(queries_BxL, 0)[:, :, :, None] == around(cut(keys_BxL, -1), -1)[:, :, None, :]
    places = jnp.arange(3 * reach)[None, :] - reach - jnp.arange(reach)[:, None]
    seen &= (jnp.abs(places) <= reach)[None, None, :, :]
    scores = jnp.where(seen[:, None, :, :, :], scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    rate, axes = config.attention_probs_dropout_prob, ("batch", "heads", "length", None, None)
    probabilities = dropout(config, probabilities, rate, key, layout, axes)
    mixed = jnp.einsum("bhnqm,bnmhk->bnqhk", probabilities, v)
    return mixed.reshape(batch, count * reach, heads, width)[:, :length]


def chunked(
    attend: Callable[[Array, Array, Array | None], Array],
    q: Array,
    queries: Array,
    key: Array | None,
) -> Array:
    """`attend(q, queries, key)` for a part of the queries at a time, each worked out again in the
    backward pass.

    `q` is [B, L, H, K], `queries` [B, L]. A part has queries from all along the row, so that
    devices that share a row each work on those they have.
    """
    batch, length = queries.shape
    count = next(n for n in range(-(-length // CHUNK), length + 1) if length % n == 0)

    def part(numbered: tuple[Array, Array, Array]) -> Array:
        number, q, queries = numbered
        return attend(q, queries, None if key is None else jax.random.fold_in(key, number))

    parts = [jnp.moveaxis(x.reshape(batch, -1, count, *x.shape[2:]), 2, 0) for x in (q, queries)]
    mixed = jax.lax.map(jax.checkpoint(part), (jnp.arange(count), *parts))
    return jnp.moveaxis(mixed, 0, 2).reshape(q.shape)
