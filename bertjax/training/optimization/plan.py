"""What an update takes from its step alone: the learning rate and the mask rate."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import Config, DataConfig, OptimizerConfig
from bertjax.config.phases.resolution import Course, Phase, phase_before, phases_of
from bertjax.training.optimization.schedules import make_schedule

BLOCK = 1024
"""Number of steps whose learning rates are computed together."""


class Plan(NamedTuple):
    """The course of the learning rate in a phase; part of the key of its compiled program."""

    rate: Course
    first_rate: float = 0.0
    """The learning rate from which a warmup leads to the peak."""


def plan_of(phases: Sequence[Phase[Config]], phase: Phase[Config]) -> Plan:
    """Return the plan of one of the phases of a run.

    A warmup of a later phase begins at the rate with which the phase before it ended.
    """
    begin = phase.rate.begin
    if begin == 0 or phase.config.optimizer.warmup_steps == 0:
        return Plan(phase.rate)
    before = phase_before(phases, begin)
    schedule = learning_rate(before.config.optimizer, plan_of(phases, before))
    # Also while a step is traced: the number is a constant of the program.
    with jax.ensure_compile_time_eval():
        return Plan(phase.rate, float(schedule(begin)))


def learning_rate(optimizer: OptimizerConfig, plan: Plan) -> optax.Schedule:
    """Return the function from a step of the run to its learning rate, within one phase.

    `optimizer` is that of the phase, in steps.
    """
    schedule = make_schedule(optimizer, plan.rate.steps, plan.first_rate)
    if plan.rate.begin == 0:
        return schedule

    def later(step: ArrayLike) -> ArrayLike:
        return schedule(step - plan.rate.begin)

    return later


def learning_rates(config: Config, steps: int) -> np.ndarray:
    """Return the learning rates of the first `steps` steps of a run, float32 `[steps]`."""
    rates = np.empty(steps, np.float32)
    phases = phases_of(config)
    for phase in phases:
        # The last phase goes on: what follows a run's end may be asked for too.
        end = steps if phase is phases[-1] else min(phase.end, steps)
        schedule = learning_rate(phase.config.optimizer, plan_of(phases, phase))
        count = max(end - phase.begin, 0)
        # Of few lengths, because each is compiled anew.
        blocks = -(-count // BLOCK)
        of_blocks = schedule(np.arange(phase.begin, phase.begin + blocks * BLOCK))
        # A constant schedule gives one number for all steps.
        rates[phase.begin : end] = np.broadcast_to(np.asarray(of_blocks), blocks * BLOCK)[:count]
    return rates


def mask_rate(data: DataConfig, masks: Course, step: ArrayLike) -> float | Array:
    """Return the fraction of tokens to predict at a step: constant, or linear in the step."""
    if not data.mlm_probability_to:
        return data.mlm_probability
    done = jnp.clip(step - masks.begin, 0, masks.steps) / masks.steps
    change = data.mlm_probability_to - data.mlm_probability
    return data.mlm_probability + change * done
