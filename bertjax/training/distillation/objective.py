"""Pretraining with a teacher as an objective: its own losses, and the terms of distillation."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import DistillConfig, ModelConfig
from bertjax.config.distill import TERMS
from bertjax.masking.dynamic import put_predicted
from bertjax.model import attention_inside, functional
from bertjax.model.functional import DISTILLATION, TEACHER, Params
from bertjax.model.heads.soft_targets import soft_losses, weighted_sum
from bertjax.model.layout import Layout
from bertjax.model.network import Encoded
from bertjax.training import pretraining_loss
from bertjax.training.distillation import terms
from bertjax.training.pretraining import Pretraining
from bertjax.training.pretraining_loss import Sums, is_token
from bertjax.types import Batch

EMBEDDINGS, HIDDEN = "embeddings", "hidden"
"""The learned projections by what they project."""


class DistilledSums(NamedTuple):
    """Sums over a set of rows; those of two sets add up field by field."""

    own: Sums | tuple[()]
    """The sums of the run's own objective; empty if it has no weight."""
    terms: dict[str, Array]
    """The sum of each term."""
    counts: dict[str, Array]
    """What each term's sum is divided by."""


class _Both(NamedTuple):
    """Something of the student and of the teacher."""

    own: Any
    taught: Any


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
        by_term = {term: getattr(self.settings, f"{term}_weight") for term in TERMS}
        return {term: weight for term, weight in by_term.items() if weight > 0}

    @property
    def reads_masks(self) -> bool:
        """Whether words are masked: where no term looks at masked words, the text stays whole."""
        return self.settings.objective_weight > 0 or self.settings.soft_weight > 0

    def init(self, key: Array) -> Params:
        """Return new parameters; a projection between equal widths begins as the identity."""
        params = self.base.init(key)
        projections = {}
        for number, name in enumerate(self._projections, 1):
            new = self._new_projection(jax.random.fold_in(key, number))
            projections[name] = {"kernel": new}
        return {**params, DISTILLATION: projections} if projections else params

    @cached_property
    def _projections(self) -> tuple[str, ...]:
        named = {"embedding": EMBEDDINGS, "hidden": HIDDEN}
        return tuple(name for term, name in named.items() if term in self.weights)

    def _new_projection(self, key: Array) -> Array:
        width, taught = self.model.hidden_size, self.teacher.hidden_size
        if width == taught:
            return jnp.eye(width, dtype=jnp.float32)
        # The deviation keeps the size of the vectors.
        return jax.random.normal(key, (width, taught), jnp.float32) / jnp.sqrt(jnp.float32(width))

    def initial_params(self, new: Params, restored: Params) -> Params:
        return self.base.initial_params(new, restored)

    def logical_axes(self) -> Params:
        axes: dict[str, Any] = {**self.base.logical_axes()}
        if self._projections:
            own = {name: {"kernel": PartitionSpec("embed", None)} for name in self._projections}
            axes[DISTILLATION] = own
        return axes

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        if self.reads_masks:
            return self.base.prepare(batch, key, step)
        return unmasked(batch)

    def counts(self, batch: Batch) -> Any:
        own = self.base.counts(batch) if self.settings.objective_weight > 0 else ()
        return own, self._term_counts(batch)

    def _term_counts(self, batch: Batch) -> dict[str, Array]:
        counts = {}
        for term in self.weights:
            if term == "soft":
                counts[term] = jnp.sum(batch["masked_lm_weights"].astype(jnp.float32))
            elif term == "attention":
                counts[term] = jnp.sum(terms.is_seen(batch))
            else:
                counts[term] = jnp.sum(is_token(batch))
        return counts

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> DistilledSums:
        """Return the sums of all terms; `params` has the group `TEACHER`."""
        keep = bool({"hidden", "attention", "relation"} & self.weights.keys())
        batches = _Both(_for_model(self.model, batch), _for_model(self.teacher, batch))
        taught_params = params[TEACHER]
        encoded = _Both(
            functional.encode(
                self.model, params, batches.own, key=key, keep_layers=keep, layout=layout
            ),
            functional.encode(
                self.teacher, taught_params, batches.taught, keep_layers=keep, layout=layout
            ),
        )
        found: dict[str, Array] = {}
        for term in self.weights:
            function = getattr(self, f"_{term}")
            found[term] = function(_Both(params, taught_params), batches, encoded, layout)
        own: Sums | tuple[()] = ()
        if self.settings.objective_weight > 0:
            own = pretraining_loss.sums_of_hidden(
                self.model, params, batches.own, encoded.own.hidden_BxLxD, layout=layout
            )
        return DistilledSums(own, found, self._term_counts(batch))

    def _soft(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        positions = batches.own["masked_lm_positions"]
        logits = functional.mlm_logits(
            self.model, params.own, encoded.own.hidden_BxLxD, positions, layout=layout
        )
        taught = functional.mlm_logits(
            self.teacher, params.taught, encoded.taught.hidden_BxLxD, positions, layout=layout
        )
        losses = soft_losses(logits, taught, self.settings.temperature)
        return weighted_sum(losses, jnp.asarray(batches.own["masked_lm_weights"]))

    def _cosine(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        own, taught = encoded.own.hidden_BxLxD, encoded.taught.hidden_BxLxD
        return terms.cosine_sum(own, taught, is_token(batches.own))

    def _embedding(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        own = self._projected(params.own, EMBEDDINGS, encoded.own.embedded_BxLxD)
        return terms.square_sum(own, encoded.taught.embedded_BxLxD, is_token(batches.own))

    def _hidden(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        total = jnp.zeros(())
        for number, taught_number in self._pairs:
            own = self._projected(params.own, HIDDEN, _output(encoded.own, number))
            taught = _output(encoded.taught, taught_number)
            total += terms.square_sum(own, taught, is_token(batches.own))
        return total

    def _attention(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        total = jnp.zeros(())
        for number, taught_number in self._pairs:
            own = attention_inside.scores(
                self.model, params.own, batches.own, encoded.own, number, layout
            )
            taught = attention_inside.scores(
                self.teacher, params.taught, batches.taught, encoded.taught, taught_number, layout
            )
            total += terms.score_sum(own, taught, terms.is_seen(batches.own))
        return total

    def _relation(self, params: _Both, batches: _Both, encoded: _Both, layout: Layout) -> Array:
        layer = self.settings.relation_layer or self.teacher.num_hidden_layers
        own = attention_inside.projections(
            self.model, params.own, encoded.own, self.model.num_hidden_layers, layout
        )
        taught = attention_inside.projections(
            self.teacher, params.taught, encoded.taught, layer, layout
        )
        heads = self.settings.relation_heads or self.teacher.num_attention_heads
        seen, tokens = terms.is_seen(batches.own), is_token(batches.own)
        total = jnp.zeros(())
        for own_vectors, taught_vectors in zip(own, taught, strict=True):
            total += terms.relation_sum(own_vectors, taught_vectors, heads, seen, tokens)
        return total

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """The student's layers with those of the teacher, both counted from 1."""
        return list(enumerate(self.settings.teacher_layers, 1))

    def _projected(self, params: Params, name: str, x_BxLxD: Array) -> Array:
        kernel = params[DISTILLATION][name]["kernel"]
        dtype = self.model.dtype
        return jnp.einsum(
            "bld,de->ble",
            x_BxLxD.astype(dtype),
            kernel.astype(dtype),
            preferred_element_type=jnp.float32,
        )

    def loss(self, sums: DistilledSums, counts: Any) -> Array:
        own_counts, term_counts = counts
        total = jnp.zeros(())
        if self.settings.objective_weight > 0:
            own = self.base.loss(sums.own, own_counts)  # type: ignore[arg-type]
            total += self.settings.objective_weight * own
        for term, mean in _means(sums.terms, term_counts).items():
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
        for term, mean in _means(sums.terms, sums.counts).items():
            metrics[f"{term}_loss"] = mean
        return {**metrics, "loss": self.loss(sums, (own_counts, sums.counts))}


def _means(sums: Mapping[str, Array], counts: Mapping[str, Array]) -> dict[str, Array]:
    """Return the mean of each term; a batch without anything that counts has 0 and not 0 / 0."""
    return {term: value / jnp.maximum(counts[term], 1) for term, value in sums.items()}


def _output(encoded: Encoded, number: int) -> Array:
    """Return the hidden states after layer `number`, counted from 1."""
    assert encoded.layers_NxBxLxD is not None
    return encoded.layers_NxBxLxD[number - 1]


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
