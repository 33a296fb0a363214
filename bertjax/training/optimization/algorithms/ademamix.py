"""AdEMAMix (arXiv 2409.03137): Adam with a second, slow average of gradients."""

import math

import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import OptimizerConfig


def ademamix(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return (m + alpha m_slow) / (sqrt(v) + eps), where m and v are Adam's.

    The slow average has the decay rate b3, and its bias is not corrected. In the first
    `ademamix_warmup_updates` T updates, alpha is alpha t / T, and 1 / ln b3 rises linearly from
    1 / ln b1: the half-life of the average grows evenly (section 3 of the paper).
    """
    updates, alpha, b3 = config.ademamix_warmup_updates, config.ademamix_alpha, config.ademamix_b3
    if not updates:
        return optax.contrib.scale_by_ademamix(config.b1, config.b2, b3, alpha, config.eps)

    def share(count: Array) -> Array:
        # optax counts the updates before this one, the paper this one too.
        return jnp.minimum((count + 1) / updates, 1.0)

    def alpha_at(count: Array) -> Array:
        return alpha * share(count)

    def b3_at(count: Array) -> Array:
        first, last = 1 / math.log(config.b1), 1 / math.log(b3)
        return jnp.exp(1 / (first + (last - first) * share(count)))

    return optax.contrib.scale_by_ademamix(config.b1, config.b2, b3_at, alpha_at, config.eps)
