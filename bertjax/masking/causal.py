"""Causal rows: a share of each batch predicts every next token instead of masked ones.

The model is the same; a row's attention mask and its labels are others (arXiv 2410.24159).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config.data import causal_count
from bertjax.types import Batch


def causal_rows(share: float, rows: int) -> np.ndarray:
    """Return 1 for the causal rows of a batch, int32 [rows, 1]; they are spread evenly over it."""
    count = causal_count(share, rows)
    ends = (np.arange(rows + 1) * count) // rows
    return np.diff(ends).astype(np.int32)[:, None]


def with_causal_rows(batch: Batch, masked: Batch, share: float, *, shifted: bool) -> Batch:
    """Return `masked` with a share of its rows causal, and without masks in these.

    `batch` is what `masked` was made from, with its `input_ids` as they were. There are L - 1
    predictions in a row. In a causal row each token is predicted from the state before it, if both
    are of one input: the first token of a row and of each input in a packed row is not predicted.
    With `shifted`, positions are those of the predicted tokens (`ModelConfig.mlm_shifted`), and
    otherwise those before them. `causal`, int32 [B, 1], is 1 for these rows.

    The weights of both kinds of rows are scaled, so that each kind counts as much as its share of
    the rows: the loss is share * mean over next tokens + (1 - share) * mean over masked tokens.
    """
    ids = jnp.asarray(batch["input_ids"])
    rows, length = ids.shape
    flags = causal_rows(share, rows)
    is_causal = jnp.asarray(flags) > 0
    is_next = jnp.asarray(batch["input_mask"])[:, 1:] > 0
    if "pack_ids" in batch:
        packs = jnp.asarray(batch["pack_ids"])
        is_next &= packs[:, 1:] == packs[:, :-1]
    columns = jnp.arange(0, length - 1, dtype=jnp.int32)[None, :] + (1 if shifted else 0)
    weights = jnp.where(
        is_causal, is_next.astype(jnp.float32), jnp.asarray(masked["masked_lm_weights"])
    )
    return masked | {
        "input_ids": jnp.where(is_causal, ids, masked["input_ids"]),
        "masked_lm_positions": jnp.where(
            is_causal, jnp.where(is_next, columns, 0), masked["masked_lm_positions"]
        ),
        "masked_lm_ids": jnp.where(
            is_causal, jnp.where(is_next, ids[:, 1:], 0), masked["masked_lm_ids"]
        ),
        "masked_lm_weights": _balanced(weights, is_causal, float(flags.mean())),
        "causal": jnp.asarray(flags),
    }


def _balanced(weights_BxP: Array, is_causal_Bx1: Array, share: float) -> Array:
    """Return the weights, scaled so that those of causal rows are `share` of their sum."""
    of_causal = jnp.sum(jnp.where(is_causal_Bx1, weights_BxP, 0))
    total = jnp.sum(weights_BxP)
    of_masked = total - of_causal
    # A kind of rows without targets has no weight to scale: 0 and not 0 / 0.
    causal_scale = share * total / jnp.maximum(of_causal, 1)
    masked_scale = (1 - share) * total / jnp.maximum(of_masked, 1)
    return weights_BxP * jnp.where(is_causal_Bx1, causal_scale, masked_scale)
