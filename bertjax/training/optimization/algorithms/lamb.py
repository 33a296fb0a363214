"""Trust ratio of LAMB (arXiv 1904.00962): steps as large as the weights that they change."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.training.optimization.algorithms.tensors import NOT_DECAYED, axes_of_a_tensor


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Return LAMB's ratio (arXiv 1904.00962, algorithm 2): steps times |parameter| / |step|.

    Each layer of a stack has its own ratio. The ratio is 1 if one of the two norms is 0, and for
    biases and layer norms, as in the implementation of LAMB's authors.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def scaled(path: Any, step: Array, param: Array) -> Array:
        if path[-1].key in NOT_DECAYED:
            return step
        axes = axes_of_a_tensor(path, step)
        norm = jnp.sqrt(jnp.sum(param**2, axes, keepdims=True))
        step_norm = jnp.sqrt(jnp.sum(step**2, axes, keepdims=True))
        has_ratio = (norm > 0) & (step_norm > 0)
        # `where` computes both of its branches, so the divisor is replaced to avoid 0 / 0.
        ratio = norm / jnp.where(has_ratio, step_norm, 1.0)
        return step * jnp.where(has_ratio, ratio, 1.0)

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scaled, steps, params), state

    return optax.GradientTransformation(init, update)
