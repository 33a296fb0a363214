"""The terms that compare a student's layers with a teacher's, over the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import DistillConfig, ModelConfig
from bertjax.config.distill import TERMS_OF_LAYERS
from bertjax.model import attention_inside, functional
from bertjax.model.functional import DISTILLATION, Params
from bertjax.model.layout import Layout
from bertjax.model.network import Encoded
from bertjax.training.distillation import terms
from bertjax.training.pretraining_loss import is_token
from bertjax.types import Batch

EMBEDDINGS, HIDDEN = "embeddings", "hidden"
"""The learned projections by what they project."""


class Both(NamedTuple):
    """Something of the student and of the teacher."""

    own: Any
    taught: Any


@dataclass(frozen=True)
class LayerTerms:
    """The terms of embeddings and layers; those with learned projections have parameters."""

    student: ModelConfig
    teacher: ModelConfig
    settings: DistillConfig
    """With the teacher's layers named."""

    @cached_property
    def weights(self) -> dict[str, float]:
        """The weight of each term that is learned."""
        return self.settings.weights_of(TERMS_OF_LAYERS)

    def init(self, key: Array) -> Params:
        """Return the group of the learned projections; empty without any.

        One between equal widths begins as the identity.
        """
        projections = {}
        for number, name in enumerate(self._projections, 1):
            new = self._new_projection(jax.random.fold_in(key, number))
            projections[name] = {"kernel": new}
        return {DISTILLATION: projections} if projections else {}

    @cached_property
    def _projections(self) -> tuple[str, ...]:
        named = {"embedding": EMBEDDINGS, "hidden": HIDDEN}
        return tuple(name for term, name in named.items() if term in self.weights)

    def _new_projection(self, key: Array) -> Array:
        width, taught = self.student.hidden_size, self.teacher.hidden_size
        if width == taught:
            return jnp.eye(width, dtype=jnp.float32)
        # The deviation keeps the size of the vectors.
        return jax.random.normal(key, (width, taught), jnp.float32) / jnp.sqrt(jnp.float32(width))

    def logical_axes(self) -> Params:
        """Return the tree of `init` with a PartitionSpec of logical axis names for each leaf."""
        own = {name: {"kernel": PartitionSpec("embed", None)} for name in self._projections}
        return {DISTILLATION: own} if own else {}

    def encode(self, params: Both, batches: Both, *, key: Array | None, layout: Layout) -> Both:
        """Return what both encoders compute; the student with dropout if a `key` is given.

        The layers' outputs are among it if a term looks at them. `batches` have the rows of one
        batch, [B, L], as each of the two models reads them.
        """
        keep = bool({"hidden", "attention", "relation"} & self.weights.keys())
        return Both(
            functional.encode(
                self.student, params.own, batches.own, key=key, keep_layers=keep, layout=layout
            ),
            functional.encode(
                self.teacher, params.taught, batches.taught, keep_layers=keep, layout=layout
            ),
        )

    def counts(self, batch: Batch) -> dict[str, Array]:
        """Return what the sum of each term is divided by: pairs of tokens, or tokens."""
        counted = {"attention": terms.is_seen}
        return {term: jnp.sum(counted.get(term, is_token)(batch)) for term in self.weights}

    def sums(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> dict[str, Array]:
        """Return the sum of each term; `encoded` is the result of `encode`."""
        functions = {
            "cosine": self._cosine,
            "embedding": self._embedding,
            "hidden": self._hidden,
            "attention": self._attention,
            "relation": self._relation,
        }
        return {term: functions[term](params, batches, encoded, layout) for term in self.weights}

    def _cosine(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        own, taught = encoded.own.hidden_BxLxD, encoded.taught.hidden_BxLxD
        return terms.cosine_sum(own, taught, is_token(batches.own))

    def _embedding(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        own = self._projected(params.own, EMBEDDINGS, encoded.own.embedded_BxLxD)
        return terms.square_sum(own, encoded.taught.embedded_BxLxD, is_token(batches.own))

    def _hidden(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        total = jnp.zeros(())
        for number, taught_number in self._pairs:
            own = self._projected(params.own, HIDDEN, _output(encoded.own, number))
            taught = _output(encoded.taught, taught_number)
            total += terms.square_sum(own, taught, is_token(batches.own))
        return total

    def _attention(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        total = jnp.zeros(())
        for number, taught_number in self._pairs:
            own = attention_inside.scores(
                self.student, params.own, batches.own, encoded.own, number, layout
            )
            taught = attention_inside.scores(
                self.teacher, params.taught, batches.taught, encoded.taught, taught_number, layout
            )
            total += terms.score_sum(own, taught, terms.is_seen(batches.own))
        return total

    def _relation(self, params: Both, batches: Both, encoded: Both, layout: Layout) -> Array:
        layer = self.settings.relation_layer or self.teacher.num_hidden_layers
        own = attention_inside.projections(
            self.student, params.own, encoded.own, self.student.num_hidden_layers, layout
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
        dtype = self.student.dtype
        return jnp.einsum(
            "bld,de->ble",
            x_BxLxD.astype(dtype),
            kernel.astype(dtype),
            preferred_element_type=jnp.float32,
        )


def mean_terms(sums: Mapping[str, Array], counts: Mapping[str, Array]) -> dict[str, Array]:
    """Return the mean of each term; a batch without anything that counts has 0 and not 0 / 0."""
    return {term: value / jnp.maximum(counts[term], 1) for term, value in sums.items()}


def _output(encoded: Encoded, number: int) -> Array:
    """Return the hidden states after layer `number`, counted from 1."""
    assert encoded.layers_NxBxLxD is not None
    return encoded.layers_NxBxLxD[number - 1]
