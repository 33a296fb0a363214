"""Sophia-H (arXiv 2305.14342, algorithm 3): clipped steps by an estimate of the Hessian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.model.functional import Params


class SophiaState(NamedTuple):
    """Moments of Sophia."""

    updates: Array
    """int32 []: number of updates that were made."""
    mu: Params
    """Average of the gradients."""
    hessian: Params
    """Average of the estimates of the Hessian's diagonal."""


def sophia(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Return m / max(gamma h, eps), clipped to -1 to 1.

    m averages the gradients, and h estimates of the Hessian's diagonal, of which every
    `sophia_interval`-th update makes one: the first too. `update` takes the function
    `hessian_diagonal`, which computes an estimate.
    """

    # Not optax's `scale_by_sophia`: it divides by the h of the update before, corrects the bias of
    # m, and keeps the state of a generator of random numbers.
    def init(params: Any) -> SophiaState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SophiaState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: Any,
        state: Any,
        params: Any = None,
        *,
        hessian_diagonal: Callable[[], Params],
        **_: Any,
    ) -> tuple[Any, SophiaState]:
        b1, b2 = config.sophia_b1, config.sophia_b2
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)

        def estimated() -> Params:
            estimate = hessian_diagonal()
            return jax.tree.map(lambda h, e: b2 * h + (1 - b2) * e, state.hessian, estimate)

        is_due = state.updates % config.sophia_interval == 0
        # A condition: an estimate takes the time of about two gradients.
        hessian = jax.lax.cond(is_due, estimated, lambda: state.hessian)

        def step(m: Array, h: Array) -> Array:
            # An estimate may be negative. There the divisor is eps, and the step clipped.
            return jnp.clip(m / jnp.maximum(config.sophia_gamma * h, config.sophia_eps), -1.0, 1.0)

        steps = jax.tree.map(step, mu, hessian)
        return steps, SophiaState(optax.safe_increment(state.updates), mu, hessian)

    return optax.GradientTransformationExtraArgs(init, update)


def hutchinson(gradient: Callable[[Params], Params], params: Params, key: Array) -> Params:
    """Return an unbiased estimate of the Hessian's diagonal: u times H u, u normal.

    (Algorithm 1 of the paper.) `gradient` is the function whose derivative H is. The draws depend
    on `key` alone, and not on the mesh.
    """
    leaves, structure = jax.tree.flatten(params)
    draws = []
    for number, leaf in enumerate(leaves):
        draws.append(jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype))
    direction = jax.tree.unflatten(structure, draws)
    _, product = jax.jvp(gradient, (params,), (direction,))
    return jax.tree.map(jnp.multiply, direction, product)
