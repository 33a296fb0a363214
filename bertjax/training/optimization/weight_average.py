"""The exponential moving average of a run's weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.model.functional import Params

EMA = "ema"
"""Name of the average in the optimizer's state, and so in the names of a checkpoint's arrays."""


class AverageState(NamedTuple):
    """The average beside the state of the optimizer."""

    updates: Array
    """int32 []: number of updates that were made."""
    ema: Params
    inner: optax.OptState


def average_weights(
    inner: optax.GradientTransformationExtraArgs, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Return `inner` with the average of the weights after each update in its state.

    After t updates it is the sum of decay^(t - i) p_i, divided by the sum of decay^(t - i), over
    the weights p_i after update i of 1 to t. So the first, random weights are not in it. `update`
    takes the learning rate as `rate`, by which the train step multiplies what it returns.
    """

    def init(params: Any) -> AverageState:
        # Copies: the train step donates the state, and no buffer may be donated twice.
        ema = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        return AverageState(jnp.zeros((), jnp.int32), ema, inner.init(params))

    def update(
        grads: Any, state: Any, params: Any = None, *, rate: Array, **extra: Any
    ) -> tuple[Any, AverageState]:
        steps, inner_state = inner.update(grads, state.inner, params, rate=rate, **extra)
        updates = optax.safe_increment(state.updates)
        share = (1 - decay) / (1 - decay ** updates.astype(jnp.float32))

        def averaged(ema: Array, param: Array, step: Array) -> Array:
            after = param + rate * step
            return ema + share * (after - ema)

        ema = jax.tree.map(averaged, state.ema, params, steps)
        return steps, AverageState(updates, ema, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
