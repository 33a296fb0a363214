"""Learning-rate schedules: pure functions of the step."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int, first_rate: float = 0.0) -> optax.Schedule:
    """Return the function from a step (0-based, of `steps`) to its learning rate.

    Linear warmup gives step s the rate `peak * s / warmup_steps`, so the first update has the rate
    0, as in the original BERT (github.com/google-research/bert, optimization.py). With `first_rate`
    it leads from there to the peak. After the warmup the rate has the shape that `config.schedule`
    names. At each of `config.restarts` the schedule starts again, and its warmup rises from
    `config.end_learning_rate` (warm restarts, arXiv 1608.03983; a new warmup for more training:
    arXiv 2308.04014). Numbers of tokens in `config` must be steps already
    (`config.spans.optimizer_in_steps`).
    """
    restarts = list(config.restarts)
    schedules: list[optax.Schedule] = []
    for begin, end in pairwise([0, *restarts, config.schedule_steps or steps]):
        schedules.append(_stretch(config, end - begin, first_rate))
        first_rate = config.end_learning_rate
    if not restarts:
        return schedules[0]
    return optax.join_schedules(schedules, restarts)


def _stretch(config: OptimizerConfig, steps: int, first_rate: float) -> optax.Schedule:
    """Return the schedule of `steps` steps: a warmup from `first_rate`, then the decay."""
    decay = _after_warmup(config, steps)
    warmup = config.warmup_steps
    if warmup == 0:
        return decay
    rise = optax.linear_schedule(first_rate, config.peak_learning_rate, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def _after_warmup(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Return the schedule after the warmup, a function of the steps since its end."""
    peak, warmup = config.peak_learning_rate, config.warmup_steps
    # The warmup may be the whole run, and optax's cosine refuses 0 steps.
    rest = max(steps - warmup, 1)
    if config.schedule in FALLS:
        return FALLS[config.schedule](peak, config.end_learning_rate, rest)
    if config.schedule == "wsd":
        fall = FALLS[config.decay_shape](peak, config.end_learning_rate, config.decay_steps)
        # Negative where the fall would begin within the warmup, which `Config` refuses.
        stable = max(rest - config.decay_steps, 0)
        return optax.join_schedules([optax.constant_schedule(peak), fall], [stable])
    if config.schedule == "constant":
        return optax.constant_schedule(peak)

    # The other three count steps from the run's start: `join_schedules` counts from the warmup's
    # end, so the warmup is added again.
    def inverse_sqrt(step: Array) -> Array:
        # The shape is that of the Transformer's paper (arXiv 1706.03762, section 5.3). The rate is
        # the peak when the warmup ends.
        start = max(warmup, 1)
        return peak * jnp.sqrt(start / jnp.maximum(step + warmup, start))

    def stepwise(step: Array) -> Array:
        return peak * config.decay_factor ** ((step + warmup) // max(config.decay_steps, 1))

    def at_milestones(step: Array) -> Array:
        milestones = jnp.asarray(config.milestones, jnp.int32)
        # Of one step or of many, each by itself.
        passed = jnp.searchsorted(milestones, step + warmup, side="right")
        return peak * config.decay_factor**passed

    schedules = {"inverse_sqrt": inverse_sqrt, "step": stepwise, "multistep": at_milestones}
    return schedules[config.schedule]


def _cosine(peak: float, end: float, steps: int) -> optax.Schedule:
    # optax takes the final rate as a share of the peak.
    return optax.cosine_decay_schedule(peak, steps, alpha=end / peak)


def _sqrt(peak: float, end: float, steps: int) -> optax.Schedule:
    """Return the fall of 1 - sqrt(t) (arXiv 2405.18392, section 4): fast at first, then slow."""
    return partial(_sqrt_rate, peak, end, steps)


def _sqrt_rate(peak: float, end: float, steps: int, step: Array) -> Array:
    # Also before its first step, where `join_schedules` computes it and does not use it.
    done = jnp.clip(step, 0, steps) / steps
    return end + (peak - end) * (1 - jnp.sqrt(done))


FALLS: dict[str, Callable[[float, float, int], optax.Schedule]] = {
    "linear": optax.linear_schedule,
    "cosine": _cosine,
    "sqrt": _sqrt,
}
"""Functions of (rate before, rate after, steps) that make a schedule which falls so."""
