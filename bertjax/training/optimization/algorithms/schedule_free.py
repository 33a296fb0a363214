"""Schedule-free AdamW (arXiv 2405.15682, algorithm 1): averaged weights, no falling rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.model.functional import Params


class ScheduleFreeState(NamedTuple):
    """Fast weights z of a schedule-free run, whose parameters are their average x."""

    updates: Array
    """int32 []: number of updates that were made."""
    weight_sum: Array
    """float32 []: sum of the weights of all updates in the average."""
    z: Params
    inner: optax.OptState
    """State of the transformation that moves z."""


def second_moment(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return g / (sqrt(v) + eps): the first moment's place is taken by the average."""
    return optax.scale_by_rms(config.b2, config.eps, eps_in_sqrt=False)


def average_steps(
    inner: optax.GradientTransformation, config: OptimizerConfig
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation of x, which averages the weights z that `inner` moves.

    z moves by the rate r times sqrt(1 - b2^t) times the steps of `inner`. x moves towards z by the
    share c = r^2 (1 - b2^t) of this update in the sum of all. Gradients must be those at
    `weights_between` x and z. `update` takes the learning rate as `rate`, and returns the step of x
    that is still to be multiplied by the rate.

    The parameters of the run are x. So what evaluates, exports or fine-tunes them has the right
    ones. In optax's `schedule_free` the parameters are the weights between x and z.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> ScheduleFreeState:
        # Copies: the train step donates the state, and no buffer may be donated twice.
        z = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
        zero = jnp.zeros((), jnp.float32)
        return ScheduleFreeState(jnp.zeros((), jnp.int32), zero, z, inner.init(params))

    def update(
        grads: Any, state: Any, params: Any = None, *, rate: Array, **extra: Any
    ) -> tuple[Any, ScheduleFreeState]:
        between = weights_between(params, state, config.b1)
        steps, inner_state = inner.update(grads, state.inner, between, rate=rate, **extra)
        updates = optax.safe_increment(state.updates)
        # The correction of the second moment's bias, which is in the paper's learning rate.
        own_rate = rate * jnp.sqrt(1 - config.b2 ** updates.astype(jnp.float32))
        z = jax.tree.map(lambda weights, step: weights + own_rate * step, state.z, steps)
        weight_sum = state.weight_sum + own_rate**2
        # The first update of a warmup has the rate 0 and moves nothing.
        share = own_rate**2 / jnp.where(weight_sum > 0, weight_sum, 1.0)
        factor = share / jnp.where(rate > 0, rate, 1.0)
        # Differences: where z equals x, as of frozen parameters, x stays to the bit.
        moves = jax.tree.map(lambda fast, x: factor * (fast - x), z, params)
        return moves, ScheduleFreeState(updates, weight_sum, z, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def weights_between(params: Params, opt_state: optax.OptState, b1: float) -> Params:
    """Return y = b1 x + (1 - b1) z, at which gradients are taken; its derivative by x is 1.

    `opt_state` has a `ScheduleFreeState` in it, or is one.
    """

    def between(x: Array, z: Array) -> Array:
        return x + jax.lax.stop_gradient((1 - b1) * (z - x))

    nodes = jax.tree.leaves(opt_state, is_leaf=_is_own)
    return jax.tree.map(between, params, next(node.z for node in nodes if _is_own(node)))


def _is_own(node: Any) -> bool:
    return isinstance(node, ScheduleFreeState)
