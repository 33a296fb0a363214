"""The losses of pretraining, as sums and counts over the given rows.

Sums add up over the parts of a batch, devices and evaluation batches; the mean is taken once.
Imports the model only, so that other JAX code can use it alone.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.heads.cross_entropy import CrossEntropy, weighted_cross_entropy
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.types import Batch


class Sums(NamedTuple):
    """Float32 scalars over a set of rows; the sums of two sets add up field by field."""

    mlm_loss: Array
    """Losses of the masked tokens, in nats, times their weights: the negative log-likelihoods, and
    what `model.z_loss` adds to them.
    """
    mlm_correct: Array
    """Weight of the masked tokens for which the true id has the highest logit."""
    mlm_count: Array
    """Divisor of `mlm_loss`: the weight of the masked tokens, or the batch's `masked_lm_counts`."""
    nsp_loss: Array
    nsp_correct: Array
    nsp_count: Array
    """The same for the sentence labels; a row counts 1 or, where given, its `cls_weights`."""
    rows: Array
    """Rows that are not padding."""
    mlm_nll: Array
    """The negative log-likelihoods of `mlm_loss` alone, to report; use `mlm_loss` for gradients."""
    mlm_weight: Array
    """Weight of the masked tokens, of which `mlm_correct` is a part."""


def counts(batch: Batch) -> tuple[Array, Array]:
    """Return the divisors of the two losses for these rows: (`mlm_count`, `nsp_count`)."""
    return _mlm_count(batch), jnp.sum(_sentence_weights(batch))


def _mlm_count(batch: Batch) -> Array:
    name = "masked_lm_counts" if "masked_lm_counts" in batch else "masked_lm_weights"
    return jnp.sum(batch[name].astype(jnp.float32))


def usable(config: ModelConfig, batch: Batch) -> Batch:
    """Return the batch with weight 0 where a token to predict has no state before it to read.

    That is the first token of a row or of an input in a packed row, for a model whose predictions
    are shifted (`config.mlm_shifted`).
    """
    if not config.mlm_shifted:
        return batch
    positions = jnp.asarray(batch["masked_lm_positions"])
    has_before = positions > 0
    if "pack_ids" in batch:
        packs = jnp.asarray(batch["pack_ids"])
        own = jnp.take_along_axis(packs, positions, axis=1)
        before = jnp.take_along_axis(packs, jnp.maximum(positions - 1, 0), axis=1)
        has_before &= own == before
    weights = jnp.where(has_before, jnp.asarray(batch["masked_lm_weights"]), 0)
    return {**batch, "masked_lm_weights": weights}


def is_token(batch: Batch) -> Array:
    """Return 1 for tokens that are not padding, float32 [B, L]."""
    if "input_mask" not in batch:
        return jnp.ones(jnp.shape(batch["input_ids"]), jnp.float32)
    return (jnp.asarray(batch["input_mask"]) > 0).astype(jnp.float32)


def _is_row(batch: Batch) -> Array:
    """Return 1 for rows that are not padding, [B, 1] float32: such rows fill up a last batch."""
    if "input_mask" not in batch:
        return jnp.ones((batch["input_ids"].shape[0], 1), jnp.float32)
    return (jnp.max(batch["input_mask"], axis=1, keepdims=True) > 0).astype(jnp.float32)


def _sentence_weights(batch: Batch) -> Array:
    if "next_sentence_labels" not in batch:
        return jnp.zeros((1, 1), jnp.float32)
    return batch["cls_weights"].astype(jnp.float32) if "cls_weights" in batch else _is_row(batch)


def pretraining_sums(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
    layout: Layout = ANYWHERE,
) -> Sums:
    """Return the masked-token and sentence losses of `batch`, with dropout if a `key` is given.

    Beside the features of `bertjax.encode`, `batch` holds `masked_lm_positions`, `masked_lm_ids`
    [B, P] int32 and `masked_lm_weights` [B, P] float32 (0 where padded). Where there is a sentence
    objective it holds `next_sentence_labels` [B, S] int32 (0: follows or in order; 1: random or
    swapped), and for packed rows `cls_positions` [B, S] int32 and `cls_weights` [B, S] float32.
    With `masked_lm_counts` [B, 1] float32 the masked-token loss is divided by their sum, and not by
    that of the weights.
    """
    hidden = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
    return sums_of_hidden(config, params, batch, hidden, layout=layout)


def sums_of_hidden(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    hidden: Array,
    *,
    layout: Layout = ANYWHERE,
    mlm: CrossEntropy | None = None,
) -> Sums:
    """Return `pretraining_sums` where the last hidden states of `batch`, [B, L, D], are known.

    `mlm` is the cross-entropy of the masked tokens, if it is known too.
    """
    batch = usable(config, batch)
    if mlm is None:
        mlm = functional.mlm_cross_entropy(
            config,
            params,
            hidden,
            batch["masked_lm_positions"],
            batch["masked_lm_ids"],
            batch["masked_lm_weights"],
            layout=layout,
        )
    nothing = jnp.zeros(())
    nsp = CrossEntropy(nothing, nothing, nothing, nothing)
    if "next_sentence_labels" in batch:
        if "cls_positions" in batch:
            positions = batch["cls_positions"]
        else:
            # Without packing a row has one [CLS], its first token.
            positions = jnp.zeros((hidden.shape[0], 1), jnp.int32)
        pooled = functional.pool(config, params, hidden, positions)
        logits = functional.nsp_logits(config, params, pooled)
        nsp = weighted_cross_entropy(
            logits, batch["next_sentence_labels"], _sentence_weights(batch)
        )
    return Sums(
        mlm_loss=mlm.loss,
        mlm_correct=mlm.correct,
        mlm_count=_mlm_count(batch),
        nsp_loss=nsp.loss,
        nsp_correct=nsp.correct,
        nsp_count=nsp.weight,
        rows=jnp.sum(_is_row(batch)),
        mlm_nll=mlm.nll,
        mlm_weight=mlm.weight,
    )


def mean_loss(sums: Sums, mlm_count: Array, nsp_count: Array) -> Array:
    """Return the training loss in nats: mean masked-token loss plus mean sentence loss.

    If `sums` are over a part of a batch, the counts must still be those of the whole batch.
    """
    # The divisor is at least 1, so that a batch without targets has loss 0 and not 0 / 0.
    # The original too adds the two means, with 1e-5 in the divisor instead (run_pretraining.py,
    # get_masked_lm_output).
    return sums.mlm_loss / jnp.maximum(mlm_count, 1) + sums.nsp_loss / jnp.maximum(nsp_count, 1)


def pretraining_loss(
    config: ModelConfig, params: Params, batch: Batch, *, key: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Return the loss of `batch`, float32 [] in nats, and its metrics.

    Fit for `jax.value_and_grad(..., has_aux=True)`. `batch` is as `pretraining_sums` takes it.

    >>> import bertjax, numpy as np
    >>> model = bertjax.load_model("runs/tiny")
    >>> batch = {
    ...     "input_ids": np.array([[2, 7, 4, 3]], np.int32),
    ...     "masked_lm_positions": np.array([[2]], np.int32),
    ...     "masked_lm_ids": np.array([[8]], np.int32),
    ...     "masked_lm_weights": np.ones((1, 1), np.float32),
    ...     "next_sentence_labels": np.zeros((1, 1), np.int32),
    ... }
    >>> loss, metrics = bertjax.pretraining_loss(model.config.model, model.params, batch)
    >>> loss.shape, sorted(metrics)
    ((), ['loss', 'mlm_accuracy', 'mlm_loss', 'nsp_accuracy', 'nsp_loss'])
    """
    sums = pretraining_sums(config, params, batch, key=key)
    metrics = means(sums)
    return metrics["loss"], metrics


def means(sums: Sums, objective: str = "next_sentence") -> dict[str, Array]:
    """Return the metrics of the rows that were summed, float32 []; losses in nats.

    They are `loss`, `mlm_loss`, `mlm_accuracy`, `nsp_loss` and `nsp_accuracy`. What `model.z_loss`
    adds is in `loss`, and not in `mlm_loss`. With the `objective` `sentence_order` the last two are
    named `sop_…`; with `none` they are left out.
    """
    mlm, nsp = jnp.maximum(sums.mlm_count, 1), jnp.maximum(sums.nsp_count, 1)
    metrics = {
        "loss": mean_loss(sums, sums.mlm_count, sums.nsp_count),
        "mlm_loss": sums.mlm_nll / mlm,
        "mlm_accuracy": sums.mlm_correct / jnp.maximum(sums.mlm_weight, 1),
    }
    if objective != "none":
        prefix = {"next_sentence": "nsp", "sentence_order": "sop"}[objective]
        metrics[f"{prefix}_loss"] = sums.nsp_loss / nsp
        metrics[f"{prefix}_accuracy"] = sums.nsp_correct / nsp
    return metrics
