"""StableAdamW (arXiv 2304.13013, algorithm 2): AdamW with clipped updates."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.training.optimization.algorithms.tensors import axes_of_a_tensor, decay_mask


def stable_adamw(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return AdamW's step, with its decay, divided by max(1, RMS) for each tensor.

    RMS is the root of the mean of g^2 / max(v, eps^2) over the tensor, where v is the second moment
    with its bias corrected. It is above 1 where gradients have just become larger than v knows. The
    paper divides the learning rate, which multiplies the weight decay too. Each layer of a stack is
    a tensor of its own.
    """
    # One transformation, decay included: the ratio needs the gradient and covers the decay.
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        steps, state = adam.update(grads, state)
        correction = 1 - config.b2 ** state.count.astype(jnp.float32)

        def divided(
            path: Any, step: Array, grad: Array, nu: Array, param: Array, decays: bool
        ) -> Array:
            second_moment = jnp.maximum(nu / correction, config.eps**2)
            axes = axes_of_a_tensor(path, step)
            rms = jnp.sqrt(jnp.mean(grad**2 / second_moment, axes, keepdims=True))
            decayed = step + config.weight_decay * param if decays else step
            return decayed / jnp.maximum(1.0, rms)

        trees = (steps, grads, state.nu, params, decay_mask(params))
        return jax.tree_util.tree_map_with_path(divided, *trees), state

    return optax.GradientTransformation(adam.init, update)
