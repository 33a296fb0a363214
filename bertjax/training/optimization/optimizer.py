"""AdamW as commonly used with BERT, the original BERT's own variant, and LAMB."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig
from bertjax.model.functional import Params
from bertjax.training.optimization.freezing import scale_steps
from bertjax.training.optimization.mixout import keep_first_values

# Names of biases, and of the scale of layer norms. The original BERT excludes them from weight
# decay, and LAMB's authors from the trust ratio too.
# The weights of `layer_mix` decay: GPT-BERT's authors spare biases and layer norms alone.
NOT_DECAYED = ("bias", "scale")
# Below the first group a parameter's first axis counts layers, and that of the second sublayers.
STACKED = ("layers", "mix")


def decay_mask(params: Params) -> Params:
    """Return True for each parameter that weight decay applies to: all but biases and layer norms.

    Parameters are recognized by name and not by rank, because a bias is a matrix too when layers
    are stacked.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return gradient clipping and `config.algorithm` at learning rate 1.

    The train step itself multiplies by the learning rate, so that the rate depends only on the
    step, even after an update was skipped.
    """
    # Clipping comes before the moments, as in the original BERT. Weight decay comes after them,
    # decoupled from the gradient as in AdamW (arXiv 1711.05101). LAMB's ratio covers the decay too
    # (algorithm 2 of its paper). The scales of layers come last and multiply the decay too, so a
    # frozen parameter does not decay.
    clip = optax.identity()
    if config.max_grad_norm:
        clip = optax.clip_by_global_norm(config.max_grad_norm)
    trust_ratio = optax.identity()
    if config.algorithm == "lamb":
        trust_ratio = scale_by_layer_trust_ratio()
    return optax.chain(
        clip,
        _moments(config),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        trust_ratio,
        scale_steps(config),
        # The sign makes steps point downhill: the train step adds the rate times the step.
        optax.scale(-1.0),
        keep_first_values(config.mixout),
    )


def _moments(config: OptimizerConfig) -> optax.GradientTransformation:
    if config.algorithm == "bert":
        return scale_by_uncorrected_adam(config.b1, config.b2, config.eps)
    return optax.scale_by_adam(config.b1, config.b2, config.eps)


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Return Adam's moments without their bias correction: m / (sqrt(v) + eps).

    This is the optimizer of the original BERT, which leaves the correction out
    (github.com/google-research/bert, optimization.py). Its first steps are up to
    (1 - b1) / sqrt(1 - b2) times Adam's.
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
    """Return LAMB's ratio (arXiv 1904.00962, algorithm 2): steps times |parameter| / |step|.

    Each layer of a stack has its own ratio, and so has each row of `layer_mix`, which is a vector
    of its own in the code of GPT-BERT's authors. The ratio is 1 if one of the two norms is 0, and
    for biases and layer norms, as in the implementation of LAMB's authors.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def scaled(path: Any, step: Array, param: Array) -> Array:
        if path[-1].key in NOT_DECAYED:
            return step
        is_stacked = any(key.key in STACKED for key in path)
        axes = tuple(range(1 if is_stacked else 0, step.ndim))
        norm = jnp.sqrt(jnp.sum(param**2, axes, keepdims=True))
        step_norm = jnp.sqrt(jnp.sum(step**2, axes, keepdims=True))
        has_ratio = (norm > 0) & (step_norm > 0)
        # `where` computes both of its branches, so the divisor is replaced to avoid 0 / 0.
        ratio = norm / jnp.where(has_ratio, step_norm, 1.0)
        return step * jnp.where(has_ratio, ratio, 1.0)

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scaled, steps, params), state

    return optax.GradientTransformation(init, update)
