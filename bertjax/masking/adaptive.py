"""Weights of the pieces of a vocabulary, by which tokens are chosen to be masked, and their update.

A piece that the model predicts well has a small weight (arXiv 2510.20475). All of it is computed
element by element or in integers, so that no mesh of devices changes a bit.

V pieces of the vocabulary   B rows   L length   P predicted positions
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.types import Batch

LEAST = 1 / 30
"""Smallest weight: so that each piece is masked sometimes. The authors' code has 0.005 of 0.15."""
WEIGHTS = "mask_weights"
"""Name of the array of a batch with the weight of each token, int32 [B, L]."""
LARGEST_SUM = 2**30
"""Bound of the weights of a row, which are added up as int32."""


class PieceScores(NamedTuple):
    """What is known of each piece; the state of adaptive masks."""

    weights: Array
    """Float32 [V], `LEAST` to 1."""
    right: Array
    """int32 [V]: predictions since the last update of the weights in which it had the highest
    logit.
    """
    seen: Array
    """int32 [V]: its predictions since the last update."""


def new_scores(pieces: int) -> PieceScores:
    """Return the scores of a vocabulary before the first step: equal weights."""
    nothing = jnp.zeros((pieces,), jnp.int32)
    return PieceScores(jnp.ones((pieces,), jnp.float32), nothing, jnp.zeros_like(nothing))


def counted(labels_BxP: ArrayLike, used_BxP: ArrayLike, pieces: int) -> Array:
    """Return how often each piece is a label where `used_BxP`, bool; int32 [V]."""
    nothing = jnp.zeros((pieces,), jnp.int32)
    return nothing.at[jnp.asarray(labels_BxP)].add(jnp.asarray(used_BxP).astype(jnp.int32))


def after_update(
    scores: PieceScores, right: Array, seen: Array, *, is_due: ArrayLike, memory: float
) -> PieceScores:
    """Return the scores after an update in which pieces were predicted, int32 [V].

    Where `is_due`, bool [], the weights change. With the accuracy a = (right + 1/2) / (seen + 1)
    since the last change, a weight w becomes

        max(LEAST, memory * w + (1 - memory) * (1 - a))

    and counting begins anew (arXiv 2510.20475; a and `LEAST` as in the authors' code).
    """
    right, seen = scores.right + right, scores.seen + seen
    # The product is 1 - a: no difference of two numbers, of which a compiler may round one.
    errors = (seen - right).astype(jnp.float32) + 0.5
    missed = errors / (seen.astype(jnp.float32) + 1)
    changed = jnp.maximum(memory * scores.weights + (1 - memory) * missed, LEAST)
    return PieceScores(
        jnp.where(is_due, changed, scores.weights),
        jnp.where(is_due, 0, right),
        jnp.where(is_due, 0, seen),
    )


def with_weights(batch: Batch, scores: PieceScores) -> Batch:
    """Return the batch with the weight of each of its tokens (`WEIGHTS`).

    They are whole numbers, whose sum over a row is the same in any order: `LARGEST_SUM` / L for the
    weight 1.
    """
    ids = jnp.asarray(batch["input_ids"])
    one = LARGEST_SUM // ids.shape[1]
    whole = jnp.floor(scores.weights * one).astype(jnp.int32)
    return {**batch, WEIGHTS: whole[ids]}
