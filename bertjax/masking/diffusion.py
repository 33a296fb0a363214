"""Masks of masked diffusion: each row has a mask rate of its own, and losses are weighted by it.

The mean of the weighted loss over the rate bounds the negative log-likelihood of a row's tokens
(arXiv 2406.07524, equation 10; arXiv 2502.09992, equation 3).
"""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.masking.selection import Vocabulary, is_special
from bertjax.types import Batch

LOWEST_RATE = 1e-3
"""Lower end of the mask rates, so that no weight is above 1,000 (arXiv 2406.07524 has it too)."""


def diffusion_batch(batch: Batch, vocabulary: Vocabulary, key: Array) -> Batch:
    """Return `batch` with the masks of masked diffusion in place of `word_starts`.

    The batch holds `input_ids` and `input_mask`, int32 [B, L]. Each row draws a rate t, uniform on
    (`LOWEST_RATE`, 1], and each of its ordinary tokens becomes `[MASK]` with probability t. The
    features are those of `mask_tokens`, with L predictions, one for each position: 0 in all three
    where there is nothing to predict, and a weight of 1 / t elsewhere. `masked_lm_counts`, float32
    [B, 1], has the number of each row's ordinary tokens: the loss is a mean over them.

    `key` is the PRNG key of this step's masks; with Threefry keys the masks do not depend on the
    mesh.
    """
    ids = jnp.asarray(batch["input_ids"])
    maskable = (jnp.asarray(batch["input_mask"]) > 0) & ~is_special(ids, vocabulary)
    rate_key, token_key = jax.random.split(key)
    rates = mask_rates(rate_key, ids.shape[0])
    chosen = maskable & (jax.random.uniform(token_key, ids.shape) < rates)
    columns = jnp.arange(ids.shape[1], dtype=jnp.int32)[None, :]
    others = {name: values for name, values in batch.items() if name != "word_starts"}
    return others | {
        "input_ids": jnp.where(chosen, vocabulary.mask_id, ids).astype(jnp.int32),
        "masked_lm_positions": jnp.where(chosen, columns, 0),
        "masked_lm_ids": jnp.where(chosen, ids, 0),
        "masked_lm_weights": jnp.where(chosen, 1 / rates, 0.0),
        "masked_lm_counts": jnp.sum(maskable, axis=1, keepdims=True).astype(jnp.float32),
    }


def mask_rates(key: Array, rows: int) -> Array:
    """Return a rate for each row, float32 [rows, 1], uniform on (`LOWEST_RATE`, 1]."""
    # Uniform numbers are below 1, and so 1 minus them is above 0.
    return 1 - (1 - LOWEST_RATE) * jax.random.uniform(key, (rows, 1))
