"""AdamW as BERT uses it."""

from typing import Any

import jax
import optax

from bertjax.config import OptimizerConfig

NOT_DECAYED = ("bias", "scale")


def decay_mask(params: Any) -> Any:
    """True for each parameter that weight decay falls on: all but biases and layer norms.

    By name, not by rank: stacked over layers, a bias is a matrix too.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NOT_DECAYED, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping and AdamW (arXiv 1711.05101) at learning rate 1: gradients to steps yet to be scaled.

    The step multiplies by the learning rate itself, so that the rate is a function of the
    step alone, also after an update was skipped.
    """
    clip = optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(1.0, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay, mask=decay_mask),
    )
