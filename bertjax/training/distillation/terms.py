"""The terms of distillation that compare a student's vectors with a teacher's, as sums over rows.

Each sum is over what counts: tokens that are not padding, or pairs of tokens that see each other.
Divided by the number of them, it is the mean that the papers have.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.model.heads.soft_targets import weighted_sum
from bertjax.training.pretraining_loss import is_token
from bertjax.types import Batch

# Below it, a squared length counts as this: the cosine of a vector of zeros would be 0 / 0.
SMALLEST = 1e-24


def is_seen(batch: Batch) -> Array:
    """Return 1 for each query and key of one input, both not padding, float32 [B, L, L]."""
    tokens = is_token(batch)
    seen = tokens[:, :, None] * tokens[:, None, :]
    if "pack_ids" in batch:
        packs = jnp.asarray(batch["pack_ids"])
        seen *= packs[:, :, None] == packs[:, None, :]
    return seen


def cosine_sum(own_BxLxD: Array, taught_BxLxD: Array, tokens_BxL: Array) -> Array:
    """Return the sum over tokens of 1 - cosine (arXiv 1910.01108, section 3)."""
    own, taught = _wide(own_BxLxD), _wide(taught_BxLxD)
    product = jnp.sum(own * taught, axis=-1)
    lengths = _length(own) * _length(taught)
    return weighted_sum(1 - product / lengths, tokens_BxL)


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1), SMALLEST))


def square_sum(own_BxLxD: Array, taught_BxLxD: Array, tokens_BxL: Array) -> Array:
    """Return the sum over tokens of the mean squared difference of their vectors' elements."""
    squares = jnp.square(_wide(own_BxLxD) - _wide(taught_BxLxD))
    return weighted_sum(jnp.mean(squares, axis=-1), tokens_BxL)


def score_sum(own_BxHxLxL: Array, taught_BxHxLxL: Array, seen_BxLxL: Array) -> Array:
    """Return the sum over pairs of the mean over heads of the squared difference of scores."""
    squares = jnp.square(_wide(own_BxHxLxL) - _wide(taught_BxHxLxL))
    return weighted_sum(jnp.mean(squares, axis=1), seen_BxLxL)


def relation_sum(
    own_BxLxM: Array, taught_BxLxM: Array, heads: int, seen_BxLxL: Array, tokens_BxL: Array
) -> Array:
    """Return the sum over tokens of the divergence of relations, a mean over heads, in nats.

    A relation is the softmax over keys of the scaled products of a projection with itself
    (arXiv 2012.15828, equations 4 to 7). The vectors are divided into `heads` parts, whatever
    heads the attention has, so both models may have other widths and heads.
    """
    own = _log_relations(own_BxLxM, heads, seen_BxLxL)
    taught = _log_relations(jax.lax.stop_gradient(taught_BxLxM), heads, seen_BxLxL)
    seen = seen_BxLxL[:, None, :, :] > 0
    # A key that is not seen has probability 0 and adds nothing.
    losses = jnp.where(seen, jnp.exp(taught) * (taught - own), 0)
    return weighted_sum(jnp.mean(jnp.sum(losses, axis=-1), axis=1), tokens_BxL)


def _log_relations(x_BxLxM: Array, heads: int, seen_BxLxL: Array) -> Array:
    """Return the logarithms of the relations, [B, heads, L, L] float32."""
    batch, length, width = x_BxLxM.shape
    parts = x_BxLxM.reshape(batch, length, heads, width // heads)
    products = jnp.einsum("blhk,bmhk->bhlm", parts, parts, preferred_element_type=jnp.float32)
    scaled = products / math.sqrt(width // heads)
    # The lowest float32 and not -inf: a row of padding sees no key, and would be NaN.
    seen = seen_BxLxL[:, None, :, :] > 0
    return jax.nn.log_softmax(jnp.where(seen, scaled, jnp.finfo(jnp.float32).min), axis=-1)


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32)
