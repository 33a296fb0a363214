"""Pretraining with a teacher as an objective: its own losses, and the terms of distillation."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import DistillConfig, ModelConfig
from bertjax.config.distill import SOFT, TERMS
from bertjax.masking.dynamic import put_predicted
from bertjax.model import functional
from bertjax.model.functional import TEACHER, Params
from bertjax.model.heads.soft_targets import soft_losses, weighted_sum
from bertjax.model.layout import Layout
from bertjax.training import pretraining_loss
from bertjax.training.distillation.layer_terms import Both, LayerTerms, mean_terms
from bertjax.training.pretraining import Pretraining
from bertjax.training.pretraining_loss import Sums
from bertjax.types import Batch


class DistilledSums(NamedTuple):
    """Sums over a set of rows; those of two sets add up field by field."""

    own: Sums | tuple[()]
    """The sums of the run's own objective; empty if it has no weight."""
    terms: dict[str, Array]
    """The sum of each term."""
    counts: dict[str, Array]
    """What each term's sum is divided by."""


@dataclass(frozen=True)
class DistilledPretraining:
    """An `Objective` whose parameters are the student's, and learned projections.

    The teacher's are in the group `TEACHER` of those that `sums` is given (`Given`). The teacher
    runs without dropout, on the same rows.
    """

    base: Pretraining
    """The student's own objective."""
    teacher: ModelConfig
    settings: DistillConfig
    """With the teacher's layers named, and without the teacher's folder."""

    @property
    def model(self) -> ModelConfig:
        """The student."""
        return self.base.model

    @cached_property
    def weights(self) -> dict[str, float]:
        """The weight of each term that is learned."""
        return self.settings.weights_of(TERMS)

    @property
    def reads_masks(self) -> bool:
        """Whether words are masked: where no term looks at masked words, the text stays whole."""
        return self.settings.objective_weight > 0 or self.settings.soft_weight > 0

    @cached_property
    def layer_terms(self) -> LayerTerms:
        """The terms of the layers of both."""
        return LayerTerms(self.model, self.teacher, self.settings)

    def init(self, key: Array) -> Params:
        """Return new parameters: the student's, and those of the terms of the layers."""
        return {**self.base.init(key), **self.layer_terms.init(key)}

    def initial_params(self, new: Params, restored: Params) -> Params:
        return self.base.initial_params(new, restored)

    def logical_axes(self) -> Params:
        return {**self.base.logical_axes(), **self.layer_terms.logical_axes()}

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        if self.reads_masks:
            return self.base.prepare(batch, key, step)
        return unmasked(batch)

    def counts(self, batch: Batch) -> Any:
        own = self.base.counts(batch) if self.settings.objective_weight > 0 else ()
        return own, self._term_counts(batch)

    def _term_counts(self, batch: Batch) -> dict[str, Array]:
        counts = self.layer_terms.counts(batch)
        if SOFT in self.weights:
            counts[SOFT] = jnp.sum(batch["masked_lm_weights"].astype(jnp.float32))
        return counts

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> DistilledSums:
        """Return the sums of all terms; `params` has the group `TEACHER`."""
        both = Both(params, params[TEACHER])
        batches = Both(_for_model(self.model, batch), _for_model(self.teacher, batch))
        encoded = self.layer_terms.encode(both, batches, key=key, layout=layout)
        term_sums: dict[str, Array] = {}
        if SOFT in self.weights:
            term_sums[SOFT] = self._soft(both, batches, encoded, layout)
        term_sums |= self.layer_terms.sums(both, batches, encoded, layout)
        own: Sums | tuple[()] = ()
        if self.settings.objective_weight > 0:
            own = pretraining_loss.sums_of_hidden(
                self.model, params, batches.own, encoded.own.hidden_BxLxD, layout=layout
            )
        return DistilledSums(own, term_sums, self._term_counts(batch))

    def _soft(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        positions = batches.own["masked_lm_positions"]
        logits = functional.mlm_logits(
            self.model, params.own, encoded.own.hidden_BxLxD, positions, layout=layout
        )
        taught = functional.mlm_logits(
            self.teacher, params.taught, encoded.taught.hidden_BxLxD, positions, layout=layout
        )
        losses = soft_losses(logits, taught, self.settings.temperature)
        return weighted_sum(losses, jnp.asarray(batches.own["masked_lm_weights"]))

    def loss(self, sums: DistilledSums, counts: Any) -> Array:
        own_counts, term_counts = counts
        total = jnp.zeros(())
        if self.settings.objective_weight > 0:
            own = self.base.loss(sums.own, own_counts)  # type: ignore[arg-type]
            total += self.settings.objective_weight * own
        for term, mean in mean_terms(sums.terms, term_counts).items():
            total += self.weights[term] * mean
        return total

    def means(self, sums: DistilledSums) -> dict[str, Array]:
        """Return the metrics: `loss`, those of the own objective, and `TERM_loss` of each term."""
        metrics: dict[str, Array] = {}
        own_counts: Any = ()
        if self.settings.objective_weight > 0:
            own = sums.own
            assert isinstance(own, Sums)
            metrics |= self.base.means(own)
            own_counts = own.mlm_count, own.nsp_count
        for term, mean in mean_terms(sums.terms, sums.counts).items():
            metrics[f"{term}_loss"] = mean
        return {**metrics, "loss": self.loss(sums, (own_counts, sums.counts))}


def _for_model(model: ModelConfig, batch: Batch) -> Batch:
    """Return the batch with segment ids 0 for a model that has one token type only."""
    if model.type_vocab_size > 1 or "segment_ids" not in batch:
        return batch
    return {**batch, "segment_ids": jnp.zeros_like(batch["segment_ids"])}


def unmasked(batch: Batch) -> Batch:
    """Return the batch with the true ids where words were masked."""
    if "masked_lm_ids" not in batch:
        return batch
    ids, words = jnp.asarray(batch["input_ids"]), jnp.asarray(batch["masked_lm_ids"])
    return {**batch, "input_ids": put_predicted(ids, batch, words)}
