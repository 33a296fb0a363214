"""The losses of pretraining, as sums and counts over the rows they are given.

Sums add up over microbatches, devices and evaluation batches; the mean is taken once.
Imports the model only, so that other JAX code can use it alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import Batch, Params


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
    """The same for the next-sentence labels; a row counts 1 or, where given, its `cls_weights`."""


def weighted_cross_entropy(logits: Array, labels: Array, weights: Array) -> tuple[Array, Array, Array]:
    """(loss, correct, count) sums of softmax cross-entropy in nats.

    `logits` [..., C], `labels` [...] int in 0..C-1, `weights` [...]. An entry of weight 0 adds
    nothing whatever its label; the softmax is in float32.
    """
    logits = logits.astype(jnp.float32)
    weights = weights.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return jnp.sum(jnp.where(weights > 0, losses, 0) * weights), jnp.sum(correct * weights), jnp.sum(weights)


def counts(batch: Batch) -> tuple[Array, Array]:
    """The divisors of the two losses for these rows: (`mlm_count`, `nsp_count`)."""
    return jnp.sum(batch["masked_lm_weights"].astype(jnp.float32)), jnp.sum(_row_weights(batch))


def _row_weights(batch: Batch) -> Array:
    labels = batch["next_sentence_labels"]
    return batch["cls_weights"] if "cls_weights" in batch else jnp.ones(labels.shape, jnp.float32)


def pretraining_sums(config: ModelConfig, params: Params, batch: Batch, *, key: Array | None = None) -> Sums:
    """Masked-word and next-sentence losses of `batch`, with dropout if a `key` is given.

    Beside the features of `bertjax.encode`, `batch` holds `masked_lm_positions`, `masked_lm_ids`
    [B, P] int32, `masked_lm_weights` [B, P] float32 (0 where padded), `next_sentence_labels`
    [B, 1] int32 (0 follows, 1 random), and may hold `cls_weights` [B, 1] float32.
    """
    hidden = functional.encode(config, params, batch, key=key).hidden_BxLxD
    mlm = weighted_cross_entropy(
        functional.mlm_logits(config, params, hidden, batch["masked_lm_positions"]),
        batch["masked_lm_ids"],
        batch["masked_lm_weights"],
    )
    nsp_logits = functional.nsp_logits(config, params, functional.pool(config, params, hidden))
    nsp = weighted_cross_entropy(nsp_logits[:, None, :], batch["next_sentence_labels"], _row_weights(batch))
    return Sums(*mlm, *nsp)


def mean_loss(sums: Sums, mlm_count: Array, nsp_count: Array) -> Array:
    """The loss that is trained on: mean masked-word loss plus mean next-sentence loss, in nats.

    The counts are those of the whole batch where `sums` are those of a part of it.
    """
    return sums.mlm_loss / jnp.maximum(mlm_count, 1) + sums.nsp_loss / jnp.maximum(nsp_count, 1)


def pretraining_loss(
    config: ModelConfig, params: Params, batch: Batch, *, key: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The scalar loss of `batch`, in nats, and its metrics; fit for `jax.value_and_grad(..., has_aux=True)`."""
    sums = pretraining_sums(config, params, batch, key=key)
    metrics = means(sums)
    return metrics["loss"], metrics


def means(sums: Sums) -> dict[str, Array]:
    """`loss`, `mlm_loss`, `mlm_accuracy`, `nsp_loss`, `nsp_accuracy` of the rows summed; losses in nats."""
    mlm, nsp = jnp.maximum(sums.mlm_count, 1), jnp.maximum(sums.nsp_count, 1)
    return {
        "loss": mean_loss(sums, sums.mlm_count, sums.nsp_count),
        "mlm_loss": sums.mlm_loss / mlm,
        "mlm_accuracy": sums.mlm_correct / mlm,
        "nsp_loss": sums.nsp_loss / nsp,
        "nsp_accuracy": sums.nsp_correct / nsp,
    }
