"""Pretraining as an objective: masked tokens and pairs of sentences, or replaced tokens."""

from dataclasses import dataclass

from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import Config, DataConfig, ModelConfig
from bertjax.config.data import without_places
from bertjax.config.objectives.replaced import check_discriminator
from bertjax.config.phases.resolution import Course, Phase, phases_of
from bertjax.errors import check
from bertjax.masking.causal import with_causal_rows
from bertjax.masking.diffusion import diffusion_batch
from bertjax.masking.dynamic import mask_batch
from bertjax.masking.selection import Vocabulary
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.training import pretraining_loss
from bertjax.training.adaptive_masks import AdaptiveMasks
from bertjax.training.objective import Objective
from bertjax.training.optimization.plan import mask_rate
from bertjax.training.pretraining_loss import Sums
from bertjax.training.replaced.objective import ReplacedTokens
from bertjax.types import Batch

CONSTANT = Course(0, 1)
"""The course of a mask rate that does not change: programs of equal rates are the same."""


@dataclass(frozen=True)
class Pretraining:
    """The objective of pretraining; its methods are described in `Objective`."""

    model: ModelConfig
    data: DataConfig
    vocabulary: Vocabulary | None = None
    """The vocabulary for masking inside the step; None where batches come masked."""
    masks: Course = CONSTANT
    """The steps in which the mask rate changes, if it does."""

    def init(self, key: Array) -> Params:
        return functional.init(self.model, key)

    def initial_params(self, new: Params, restored: Params) -> Params:
        return {**new, **restored}

    def logical_axes(self) -> dict[str, PartitionSpec]:
        return functional.logical_axes(self.model)

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        masked = batch
        if "masked_lm_ids" not in batch:
            masked = self._masked(batch, key, step)
        else:
            check(
                # The ids that are to be predicted are no longer in such rows.
                self.data.objective == "masked" and not self.data.causal_share,
                where="masked_lm_ids",
                found="rows that are masked already",
                expected="rows without masks, for data.objective diffusion or data.causal_share",
            )
        # Before the weights of causal rows are set against those of the others.
        masked = pretraining_loss.usable(self.model, masked)
        share = self.data.causal_share
        if not share:
            return masked
        return with_causal_rows(batch, masked, share, shifted=self.model.mlm_shifted)

    def _masked(self, batch: Batch, key: Array, step: ArrayLike) -> Batch:
        # The configuration that leaves masks to the step brings a vocabulary (`prepared_source`).
        assert self.vocabulary is not None
        if self.data.objective == "diffusion":
            return diffusion_batch(batch, self.vocabulary, key)
        rate = mask_rate(self.data, self.masks, step)
        return mask_batch(batch, self.data, self.vocabulary, key, rate)

    def counts(self, batch: Batch) -> tuple[Array, Array]:
        return pretraining_loss.counts(batch)

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> Sums:
        return pretraining_loss.pretraining_sums(self.model, params, batch, key=key, layout=layout)

    def loss(self, sums: Sums, counts: tuple[Array, Array]) -> Array:
        return pretraining_loss.mean_loss(sums, *counts)

    def means(self, sums: Sums) -> dict[str, Array]:
        return pretraining_loss.means(sums, self.data.sentence_objective)


def check_heads(config: Config) -> None:
    """Raise `UserError` where the model lacks a head that pretraining on `config.data` needs."""
    if config.replaced.is_used:
        check_discriminator(config.model, config.replaced)
        return
    sentence_objective = config.data.sentence_objective
    needed = {"mlm"} if sentence_objective == "none" else {"mlm", "nsp"}
    names = " and ".join(sorted(needed))
    check(
        needed <= set(config.model.heads),
        where="model.heads",
        found=", ".join(config.model.heads) or "none",
        expected=f"{names} too, for data.sentence_objective {sentence_objective}",
    )


def masked_words(
    config: Config, vocabulary: Vocabulary | None = None, phase: Phase[Config] | None = None
) -> Pretraining:
    """Return the objective of masked words alone, with the arguments of `pretraining`."""
    masks = CONSTANT
    if config.data.mlm_probability_to:
        phase = phase or phases_of(config)[0]
        masks = phase.masks
    return Pretraining(config.model, without_places(config.data), vocabulary, masks)


def pretraining(
    config: Config, vocabulary: Vocabulary | None = None, phase: Phase[Config] | None = None
) -> Objective:
    """Return the objective of pretraining `config`; `vocabulary` as in `Pretraining`.

    In a run with phases `config` is that of `phase`.
    """
    masked = masked_words(config, vocabulary, phase)
    if config.replaced.is_used:
        return ReplacedTokens(masked, config.model, config.replaced)
    if config.adaptive.is_used:
        return AdaptiveMasks(masked, config.model)
    return masked
