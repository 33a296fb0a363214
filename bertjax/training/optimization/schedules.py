"""Learning-rate schedules: pure functions of the step."""

import jax.numpy as jnp
import optax

from bertjax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of update `step` (0-based) of `steps`.

    Linear warmup gives update `s` the rate `peak * s / warmup_steps`, so the first update's is 0,
    as in the original BERT; what follows is the shape named by `config.schedule`.
    """
    c, warmup = config, config.warmup_steps
    rest = max(steps - warmup, 1)
    peak, end = c.peak_learning_rate, c.end_learning_rate
    after: dict[str, optax.Schedule] = {
        "linear": optax.linear_schedule(peak, end, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=end / peak),
        "constant": optax.constant_schedule(peak),
        "inverse_sqrt": lambda step: (
            peak * jnp.sqrt(max(warmup, 1) / jnp.maximum(step + warmup, max(warmup, 1)))
        ),
        "step": lambda step: peak * c.decay_factor ** ((step + warmup) // max(c.decay_steps, 1)),
        "multistep": lambda step: (
            peak * c.decay_factor ** jnp.sum(step + warmup >= jnp.asarray(c.milestones, jnp.int32))
        ),
    }
    if warmup == 0:
        return after[c.schedule]
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup), after[c.schedule]], [warmup]
    )
