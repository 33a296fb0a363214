"""AdamW as BERT uses it, the original BERT's own, and LAMB."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.training.optimization.freezing import scale_steps
from bertjax.training.optimization.mixout import keep_first_values

NOT_DECAYED = ("bias", "scale")
STACKED = "layers"  # below it a parameter's first axis counts layers


def decay_mask(params: Any) -> Any:
    """True for each parameter that weight decay falls on: all but biases and layer norms.

    By name, not by rank: stacked over layers, a bias is a matrix too.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping and `config.algorithm` at learning rate 1: gradients to steps yet to be scaled.

    The step multiplies by the learning rate itself, so that the rate is a function of the
    step alone, also after an update was skipped.
    """
    moments = {
        "adamw": optax.scale_by_adam(config.b1, config.b2, config.eps),
        "lamb": optax.scale_by_adam(config.b1, config.b2, config.eps),
        "bert": scale_by_uncorrected_adam(config.b1, config.b2, config.eps),
    }
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm)
        if config.max_grad_norm
        else optax.identity(),
        moments[config.algorithm],
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        scale_by_layer_trust_ratio() if config.algorithm == "lamb" else optax.identity(),
        scale_steps(config),
        optax.scale(-1.0),
        keep_first_values(config.mixout),
    )


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's moments without their bias correction: m / (sqrt(v) + eps).

    As the optimizer of the original BERT, which leaves the correction out
    (github.com/google-research/bert, optimization.py): the first steps are up to (1 - b1) / sqrt(1
    - b2) times Adam's.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return steps, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """LAMB's ratio (arXiv 1904.00962, algorithm 2): each layer's steps times |parameter| / |step|.

    Of stacked parameters each layer has its own ratio. It is 1 where either norm is 0, and for
    biases and layer norms, as in the authors' implementation.
    """

    def scaled(path: Any, step: Array, param: Array) -> Array:
        if path[-1].key in NOT_DECAYED:
            return step
        first = 1 if any(key.key == STACKED for key in path) else 0
        axes = tuple(range(first, step.ndim))
        norm, step_norm = (jnp.sqrt(jnp.sum(x**2, axes, keepdims=True)) for x in (param, step))
        whole = (norm > 0) & (step_norm > 0)
        return step * jnp.where(whole, norm / jnp.where(whole, step_norm, 1.0), 1.0)

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scaled, steps, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
