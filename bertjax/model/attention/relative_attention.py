"""Disentangled attention (arXiv 2006.03654): scores of content with relative positions.

Each relative position has a vector, from which queries and keys are projected. A query is compared
with the projected key of its distance to a key, and a key with the projected query of it.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig


class RelativeVectors(NamedTuple):
    """Queries and keys that are projected from the table of relative positions."""

    queries_RxHxK: Array
    keys_RxHxK: Array


def nearest_distances(config: ModelConfig) -> int:
    """Return the distance up to which each distance has a bucket of its own."""
    return (config.relative_positions + 1) // 2 // 2


def bucket_indices(config: ModelConfig, longest: int) -> np.ndarray:
    """Return the row of the table for each distance query - key in -(n - 1)..n - 1, int32 [2n - 1].

    n is `longest`. With b buckets on each side, distances up to b / 2 have a bucket each. Those
    above share buckets whose width grows logarithmically up to `relative_max_distance`.
    """
    rows = config.relative_positions
    buckets = (rows + 1) // 2
    middle = nearest_distances(config)
    limit = config.relative_max_distance or config.max_position_embeddings
    distances = np.arange(1 - longest, longest)
    far = np.full(distances.shape, buckets)
    # Short rows have near distances only; the divisor would be the logarithm of 1 or less.
    if limit - 1 > middle:
        # In float32, as the implementations of the models do: a bucket's bound may depend on it.
        sizes = np.maximum(np.abs(distances), middle).astype(np.float32)
        share = np.log(sizes / np.float32(middle)) / np.log(np.float32((limit - 1) / middle))
        far = np.ceil(share * np.float32(middle - 1)) + middle
    bucket = np.where(np.abs(distances) <= middle, distances, np.sign(distances) * far)
    return np.clip(bucket + rows // 2, 0, rows - 1).astype(np.int32)


def relative_scores(
    config: ModelConfig,
    q_BxLxHxK: Array,
    k_BxLxHxK: Array,
    relative: RelativeVectors,
) -> Array:
    """Return what relative positions add to the scores, [B, H, L, L] float32.

    It is q_i . rk[d] + k_j . rq[d] for query i and key j, where d is the row of the distance i - j.
    Queries are scaled already.
    """
    length = q_BxLxHxK.shape[1]
    longest = config.max_position_embeddings
    if isinstance(length, int):
        longest = max(longest, length)
    table = jnp.asarray(bucket_indices(config, longest))
    # The distances -(L - 1)..L - 1 of this row.
    rows = jnp.take(table, jnp.arange(2 * length - 1) + (longest - length), axis=0)
    # Every distance has a product, although several share a bucket: to gather each score from the
    # products of the buckets takes longer on a TPU than these products.
    keys = jnp.take(relative.keys_RxHxK, rows[::-1], axis=0)
    queries = jnp.take(relative.queries_RxHxK, rows, axis=0)
    to_keys = _products(q_BxLxHxK, keys)
    to_queries = _products(k_BxLxHxK, queries)
    return _shifted(to_keys) + jnp.swapaxes(_shifted(to_queries), 2, 3)


def _products(x_BxLxHxK: Array, vectors_MxHxK: Array) -> Array:
    return jnp.einsum(
        "blhk,mhk->bhlm", x_BxLxHxK, vectors_MxHxK, preferred_element_type=jnp.float32
    )


def _shifted(x_BxHxLxM: Array) -> Array:
    """Return element [i, j - i + L - 1] of the last two axes at [i, j]; M is 2 L - 1.

    With one element more in each row, the elements wanted lie M apart from row to row in the flat
    array, as they do in an array with rows of M elements (arXiv 1809.04281, section 3.4.1).
    """
    batch, heads, length, width = x_BxHxLxM.shape
    padded = jnp.pad(x_BxHxLxM, [(0, 0), (0, 0), (0, 0), (0, 1)])
    flat = padded.reshape(batch, heads, length * (width + 1))
    cut = flat[:, :, length - 1 : length - 1 + length * width]
    return cut.reshape(batch, heads, length, width)[:, :, :, :length]
