"""Masked words as an objective that also counts which pieces were predicted rightly."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import ModelConfig
from bertjax.masking.adaptive import counted
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.heads.cross_entropy import weighted_cross_entropy
from bertjax.model.layout import Layout
from bertjax.training import pretraining_loss
from bertjax.training.objective import Objective
from bertjax.training.pretraining_loss import Sums
from bertjax.types import Batch


class CountedSums(NamedTuple):
    """The sums of pretraining, and counts of pieces; those of two sets of rows add up."""

    sums: Sums
    right: Array
    """int32 [V]: how often each piece was to be predicted, and had the highest logit."""
    seen: Array
    """int32 [V]: how often it was to be predicted."""


@dataclass(frozen=True)
class AdaptiveMasks:
    """An `Objective` that is `base`, and whose sums also have what `masking.adaptive` counts.

    Counting needs the logits of all masked positions at once, [B, P, V] of a part of a batch.
    """

    base: Objective
    """The objective of masked words."""
    model: ModelConfig

    def init(self, key: Array) -> Params:
        return self.base.init(key)

    def initial_params(self, new: Params, restored: Params) -> Params:
        return self.base.initial_params(new, restored)

    def logical_axes(self) -> dict[str, PartitionSpec]:
        return dict(self.base.logical_axes())

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        return self.base.prepare(batch, key, step)

    def counts(self, batch: Batch) -> tuple[Array, Array]:
        return pretraining_loss.counts(batch)

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> CountedSums:
        model = self.model
        hidden = functional.encode(model, params, batch, key=key, layout=layout).hidden_BxLxD
        labels = jnp.asarray(batch["masked_lm_ids"])
        weights = jnp.asarray(batch["masked_lm_weights"])
        logits = functional.mlm_logits(
            model, params, hidden, batch["masked_lm_positions"], layout=layout
        )
        mlm = weighted_cross_entropy(logits, labels, weights, z_loss=model.z_loss)
        sums = pretraining_loss.sums_of_hidden(model, params, batch, hidden, layout=layout, mlm=mlm)
        picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        is_right = picked >= jnp.max(logits, axis=-1)
        used = weights > 0
        right = counted(labels, used & is_right, model.vocab_size)
        return CountedSums(sums, right, counted(labels, used, model.vocab_size))

    def loss(self, sums: CountedSums, counts: tuple[Array, Array]) -> Array:
        return self.base.loss(sums.sums, counts)

    def means(self, sums: CountedSums) -> dict[str, Array]:
        return self.base.means(sums.sums)
