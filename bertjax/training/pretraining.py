"""Pretraining as an objective: masked words and pairs of sentences."""

from dataclasses import dataclass

from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import Config, DataConfig, ModelConfig
from bertjax.errors import check
from bertjax.masking.dynamic import mask_batch
from bertjax.masking.selection import Vocabulary
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.training import pretraining_loss as objectives
from bertjax.training.pretraining_loss import Sums
from bertjax.types import Batch


@dataclass(frozen=True)
class Pretraining:
    """Masked words and sentence pairs."""

    model: ModelConfig
    data: DataConfig
    vocabulary: Vocabulary | None = None
    """What masking in the step needs; None where batches come masked."""

    def init(self, key: Array) -> Params:
        return functional.init(self.model, key)

    def begin(self, new: Params, restored: Params) -> Params:
        return {**new, **restored}

    def logical_axes(self) -> dict[str, PartitionSpec]:
        return functional.logical_axes(self.model)

    def prepare(self, batch: Batch, key: Array) -> Batch:
        if "masked_lm_ids" in batch:
            return batch
        assert self.vocabulary is not None
        return mask_batch(batch, self.data, self.vocabulary, key)

    def counts(self, batch: Batch) -> tuple[Array, Array]:
        return objectives.counts(batch)

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> Sums:
        return objectives.pretraining_sums(self.model, params, batch, key=key, layout=layout)

    def loss(self, sums: Sums, counts: tuple[Array, Array]) -> Array:
        return objectives.mean_loss(sums, *counts)

    def means(self, sums: Sums) -> dict[str, Array]:
        return objectives.means(sums, self.data.sentence_objective)


def check_heads(config: Config) -> None:
    """Raise `UserError` where the model has no head that pretraining on `config.data` needs."""
    needed = {"mlm"} if config.data.sentence_objective == "none" else {"mlm", "nsp"}
    expected = f"{' and '.join(sorted(needed))} too, for data.sentence_objective {config.data.sentence_objective}"
    check(
        needed <= set(config.model.heads),
        where="model.heads",
        found=", ".join(config.model.heads) or "none",
        expected=expected,
    )


def pretraining(config: Config, vocabulary: Vocabulary | None = None) -> Pretraining:
    """What `config` pretrains on."""
    return Pretraining(config.model, config.data, vocabulary)
