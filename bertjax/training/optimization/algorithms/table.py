"""Table of the optimizer's algorithms, by the names that `optimizer.algorithm` has."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from bertjax.config import OptimizerConfig
from bertjax.training.optimization.algorithms.ademamix import ademamix
from bertjax.training.optimization.algorithms.bert import scale_by_uncorrected_adam
from bertjax.training.optimization.algorithms.lamb import scale_by_layer_trust_ratio
from bertjax.training.optimization.algorithms.muon import muon
from bertjax.training.optimization.algorithms.schedule_free import average_steps, second_moment
from bertjax.training.optimization.algorithms.sophia import sophia
from bertjax.training.optimization.algorithms.stable_adamw import stable_adamw

Make = Callable[[OptimizerConfig], optax.GradientTransformation]
Around = Callable[[optax.GradientTransformation, OptimizerConfig], optax.GradientTransformation]


class Algorithm(NamedTuple):
    """An algorithm: what it makes of clipped gradients, at learning rate 1, uphill."""

    step: Make
    """From gradients to steps, before weight decay."""
    decays: bool = False
    """True if `step` has the weight decay in it."""
    after_decay: Make | None = None
    """What follows the weight decay."""
    around: Around | None = None
    """What the whole chain becomes: clipping, steps, decay, factors of layers, sign."""
    averages: bool = False
    """True if gradients are taken at `schedule_free.weights_between`."""
    has_hessian: bool = False
    """True if `step` takes `hessian_diagonal`."""


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.b1, config.b2, config.eps)


def _bert(config: OptimizerConfig) -> optax.GradientTransformation:
    return scale_by_uncorrected_adam(config.b1, config.b2, config.eps)


def _trust_ratio(config: OptimizerConfig) -> optax.GradientTransformation:
    return scale_by_layer_trust_ratio()


def _lion(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(config.lion_b1, config.lion_b2)


ALGORITHMS: dict[str, Algorithm] = {
    "adamw": Algorithm(_adam),
    "bert": Algorithm(_bert),
    # LAMB's ratio covers the decay too (algorithm 2 of its paper).
    "lamb": Algorithm(_adam, after_decay=_trust_ratio),
    "stable_adamw": Algorithm(stable_adamw, decays=True),
    "ademamix": Algorithm(ademamix),
    "lion": Algorithm(_lion),
    "muon": Algorithm(muon),
    "sophia": Algorithm(sophia, has_hessian=True),
    "schedule_free": Algorithm(second_moment, around=average_steps, averages=True),
}
