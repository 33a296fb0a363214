"""Replaced-token detection as an objective: a generator and a discriminator, trained together."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import ModelConfig, ReplacedConfig
from bertjax.config.objectives.replaced import generator_of
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.heads.cross_entropy import weighted_cross_entropy
from bertjax.model.layout import Layout
from bertjax.training.objective import Objective
from bertjax.training.pretraining_loss import is_token
from bertjax.training.replaced import losses, networks
from bertjax.training.replaced.losses import DetectionSums
from bertjax.types import Batch

# Purposes of the keys made from one that is given: of the samples, and of each network's dropout.
# The masks, which the first key is for, fold in small numbers.
SAMPLES = 2**20
OF_GENERATOR, OF_MODEL = 1, 2


@dataclass(frozen=True)
class ReplacedTokens:
    """An `Objective` whose parameters are the discriminator's, and the generator's in a group.

    The generator predicts masked words and puts samples of its prediction in their places; no
    gradient passes through the samples. The discriminator tells for each token whether it was
    replaced (arXiv 2003.10555, section 2).
    """

    base: Objective
    """The objective of masked words, which masks batches."""
    model: ModelConfig
    """The discriminator."""
    settings: ReplacedConfig

    @cached_property
    def generator(self) -> ModelConfig:
        """The generator."""
        return generator_of(self.model, self.settings)

    def init(self, key: Array) -> Params:
        disentangled = self.settings.is_disentangled
        return networks.new_params(self.model, self.generator, key, disentangled=disentangled)

    def initial_params(self, new: Params, restored: Params) -> Params:
        return {**new, **restored}

    def logical_axes(self) -> Params:
        disentangled = self.settings.is_disentangled
        return networks.logical_axes(self.model, self.generator, disentangled=disentangled)

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        """Return the batch with masks, and with keys for the samples."""
        masked = self.base.prepare(batch, key, step)
        of_samples = jax.random.fold_in(key, SAMPLES)
        shape = jnp.shape(masked["masked_lm_ids"])
        return {**masked, losses.SEEDS: losses.seeds(of_samples, shape)}

    def counts(self, batch: Batch) -> tuple[Array, Array]:
        """Return the numbers of masked tokens and of tokens."""
        masked = jnp.sum(jnp.asarray(batch["masked_lm_weights"]).astype(jnp.float32))
        return masked, jnp.sum(is_token(batch))

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> DetectionSums:
        return self.sums_and_samples(params, batch, key=key, layout=layout)[0]

    def sums_and_samples(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> tuple[DetectionSums, Array]:
        """Return the sums, and the words that the generator draws, int32 [B, P]."""
        keys: list[Array | None] = [None, None]
        if key is not None:
            # With one key both networks would drop the same elements.
            keys = [jax.random.fold_in(key, number) for number in (OF_GENERATOR, OF_MODEL)]
        generator, own = self.generator, networks.generator_params(params)
        hidden = functional.encode(generator, own, batch, key=keys[0], layout=layout).hidden_BxLxD
        logits = functional.mlm_logits(
            generator, own, hidden, batch["masked_lm_positions"], layout=layout
        )
        mlm = weighted_cross_entropy(
            logits,
            jnp.asarray(batch["masked_lm_ids"]),
            jnp.asarray(batch["masked_lm_weights"]),
            z_loss=generator.z_loss,
        )
        seeds = jnp.asarray(batch[losses.SEEDS])
        samples = losses.sampled(jax.lax.stop_gradient(logits), seeds, layout)
        ids, replaced = losses.corrupted(batch, samples)
        seen = {**batch, "input_ids": ids}
        encoded = functional.encode(self.model, params, seen, key=keys[1], layout=layout)
        detected = functional.rtd_logits(self.model, params, encoded.hidden_BxLxD)
        detection = losses.detection_sums(detected, replaced, is_token(batch))
        sums = DetectionSums(mlm.loss, mlm.nll, mlm.correct, mlm.weight, *detection)
        return sums, samples

    def loss(self, sums: DetectionSums, counts: tuple[Array, Array]) -> Array:
        """Return the weighted sum of the generator's and the discriminator's mean losses."""
        masked, tokens = (jnp.maximum(count, 1) for count in counts)
        generator = self.settings.generator_weight * sums.mlm_loss / masked
        return generator + self.settings.weight * sums.detection_loss / tokens

    def means(self, sums: Any) -> dict[str, Array]:
        """Return the metrics.

        `mlm_loss` and `mlm_accuracy` are the generator's; `replaced` is the share of tokens that it
        has replaced. Of the discriminator there are `detection_loss`, `detection_accuracy` over all
        tokens, and precision and recall of replaced tokens, 0 where there are none.
        """
        masked, tokens = jnp.maximum(sums.mlm_count, 1), jnp.maximum(sums.tokens, 1)
        wrong = sums.called + sums.replaced - 2 * sums.found
        return {
            "loss": self.loss(sums, (sums.mlm_count, sums.tokens)),
            "mlm_loss": sums.mlm_nll / masked,
            "mlm_accuracy": sums.mlm_correct / masked,
            "detection_loss": sums.detection_loss / tokens,
            "detection_accuracy": 1 - wrong / tokens,
            "detection_precision": sums.found / jnp.maximum(sums.called, 1),
            "detection_recall": sums.found / jnp.maximum(sums.replaced, 1),
            "replaced": sums.replaced / tokens,
        }
