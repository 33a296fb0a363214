"""The loss of soft targets: a student's probabilities against a teacher's (arXiv 1503.02531)."""

import jax
import jax.numpy as jnp
from jax import Array


def soft_losses(logits: Array, taught: Array, temperature: float, axis: int = -1) -> Array:
    """Return T^2 times KL(teacher || student) in nats, without the axis of the classes.

    Both softmaxes are of logits that are divided by the temperature T. T^2 keeps the size of the
    gradient, which falls with 1 / T^2 (section 2 of the paper). There is no gradient for the
    teacher's logits, `taught`.
    """
    own = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=axis)
    taught = jax.lax.stop_gradient(taught).astype(jnp.float32)
    target = jax.nn.log_softmax(taught / temperature, axis=axis)
    return temperature**2 * jnp.sum(jnp.exp(target) * (target - own), axis=axis)


def soft_binary_losses(logits: Array, taught: Array, temperature: float) -> Array:
    """Return the losses of `soft_losses` for classes that are independent of each other.

    Each logit is of a sigmoid of its own; the shape stays.
    """
    # A sigmoid is the softmax of the logits x and 0.
    pair = jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)
    taught_pair = jnp.stack([taught, jnp.zeros_like(taught)], axis=-1)
    return soft_losses(pair, taught_pair, temperature)


def weighted_sum(losses: Array, weights: Array) -> Array:
    """Return the sum of losses times weights; entries of weight 0 add nothing, not even NaN.

    The product alone would leave it, because 0 times NaN or infinity is NaN.
    """
    weights = weights.astype(jnp.float32)
    return jnp.sum(jnp.where(weights > 0, losses, 0) * weights)
