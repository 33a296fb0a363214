"""The losses of pretraining, as sums and counts over the rows they are given.

Sums add up over microbatches, devices and evaluation batches; the mean is taken once.
Imports the model only, so that other JAX code can use it alone.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.cross_entropy import weighted_cross_entropy
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.types import Batch


class Sums(NamedTuple):
    """Float32 scalars over a set of rows; `+` of two sets is that of their fields."""

    mlm_loss: Array
    """Negative log-likelihoods of the masked tokens, in nats, times their weights."""
    mlm_correct: Array
    """Weight of the masked tokens whose best-scored id is the true one."""
    mlm_count: Array
    """Weight of the masked tokens."""
    nsp_loss: Array
    nsp_correct: Array
    nsp_count: Array
    """The same for the sentence labels; a row counts 1 or, where given, its `cls_weights`."""
    rows: Array
    """Rows that hold anything."""


def counts(batch: Batch) -> tuple[Array, Array]:
    """The divisors of the two losses for these rows: (`mlm_count`, `nsp_count`)."""
    return jnp.sum(batch["masked_lm_weights"].astype(jnp.float32)), jnp.sum(
        _sentence_weights(batch)
    )


def _rows(batch: Batch) -> Array:
    """1 for rows that hold anything, [B, 1] float32: rows of padding fill up a last batch."""
    if "input_mask" not in batch:
        return jnp.ones((batch["input_ids"].shape[0], 1), jnp.float32)
    return (jnp.max(batch["input_mask"], axis=1, keepdims=True) > 0).astype(jnp.float32)


def _sentence_weights(batch: Batch) -> Array:
    if "next_sentence_labels" not in batch:
        return jnp.zeros((1, 1), jnp.float32)
    return batch["cls_weights"].astype(jnp.float32) if "cls_weights" in batch else _rows(batch)


def pretraining_sums(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
    layout: Layout = ANYWHERE,
) -> Sums:
    """Masked-word and sentence losses of `batch`, with dropout if a `key` is given.

    Beside the features of `bertjax.encode`, `batch` holds `masked_lm_positions`, `masked_lm_ids`
    [B, P] int32, `masked_lm_weights` [B, P] float32 (0 where padded), and where there is a sentence
    objective `next_sentence_labels` [B, S] int32 (0 follows or in order, 1 random or swapped); of
    packed rows `cls_positions` [B, S] int32 and `cls_weights` [B, S] float32 too.
    """
    hidden = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
    masked = (batch[f"masked_lm_{name}"] for name in ("positions", "ids", "weights"))
    mlm = functional.mlm_cross_entropy(config, params, hidden, *masked, layout=layout)
    nsp = (jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
    if "next_sentence_labels" in batch:
        places = (
            batch["cls_positions"]
            if "cls_positions" in batch
            else jnp.zeros((hidden.shape[0], 1), jnp.int32)
        )
        logits = functional.nsp_logits(
            config, params, functional.pool(config, params, hidden, places)
        )
        nsp = weighted_cross_entropy(
            logits, batch["next_sentence_labels"], _sentence_weights(batch)
        )
    return Sums(*mlm, *nsp, jnp.sum(_rows(batch)))


def mean_loss(sums: Sums, mlm_count: Array, nsp_count: Array) -> Array:
    """The loss that is trained on: mean masked-word loss plus mean sentence loss, in nats.

    The counts are those of the whole batch where `sums` are those of a part of it.
    """
    return sums.mlm_loss / jnp.maximum(mlm_count, 1) + sums.nsp_loss / jnp.maximum(nsp_count, 1)


def pretraining_loss(
    config: ModelConfig, params: Params, batch: Batch, *, key: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The scalar loss of `batch`, in nats, and its metrics; fit for `jax.value_and_grad(...,
    has_aux=True)`.
    """
    sums = pretraining_sums(config, params, batch, key=key)
    metrics = means(sums)
    return metrics["loss"], metrics


def means(sums: Sums, objective: str = "next_sentence") -> dict[str, Array]:
    """`loss`, `mlm_loss`, `mlm_accuracy` of the rows summed, and `nsp_loss`, `nsp_accuracy`; losses
    in nats.

    With the `objective` `sentence_order` the last two are `sop_…`, with `none` they are not there.
    """
    mlm, nsp = jnp.maximum(sums.mlm_count, 1), jnp.maximum(sums.nsp_count, 1)
    found = {
        "loss": mean_loss(sums, sums.mlm_count, sums.nsp_count),
        "mlm_loss": sums.mlm_loss / mlm,
        "mlm_accuracy": sums.mlm_correct / mlm,
    }
    if objective != "none":
        prefix = {"next_sentence": "nsp", "sentence_order": "sop"}[objective]
        found |= {
            f"{prefix}_loss": sums.nsp_loss / nsp,
            f"{prefix}_accuracy": sums.nsp_correct / nsp,
        }
    return found
