"""Which parameters move, and how far: freezing, and learning rates that fall with depth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bertjax.config import OptimizerConfig

FROZEN_WITH = {
    "none": (),
    "embeddings": ("embeddings",),
    "encoder": ("embeddings", "encoder", "pooler"),
}


def step_scales(config: OptimizerConfig, params: Any) -> Any:
    """What each parameter's steps are multiplied by: a float, or an array `[N, 1, ...]` for stacked
    layers.

    0 where it is frozen. With `layer_decay` d, layer n of 1..N has d**(N - n), the embeddings d**N,
    and what is above the layers 1 (arXiv 2006.05987, section 5).
    """
    stacked = jax.tree.leaves(params["encoder"])[0].shape[0]
    layers = config.layer_decay ** np.arange(stacked - 1, -1, -1.0)
    layers[: config.freeze_layers] = 0
    frozen = FROZEN_WITH[config.freeze] + (("embeddings",) if config.freeze_layers else ())

    def scale(path: Any, leaf: Any) -> Any:
        group = path[0].key
        if group in frozen:
            return 0.0
        if group == "encoder":
            return layers.astype(np.float32).reshape(-1, *(1,) * (len(leaf.shape) - 1))
        return config.layer_decay**stacked if group == "embeddings" else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def all_move(config: OptimizerConfig) -> bool:
    """Whether `step_scales` are all 1."""
    return config.layer_decay == 1 and config.freeze == "none" and config.freeze_layers == 0


def stop_frozen(config: OptimizerConfig, params: Any) -> Any:
    """`params`, with no gradient to those that are frozen."""
    if config.freeze == "none" and config.freeze_layers == 0:
        return params

    def stopped(leaf: Any, scale: Any) -> Any:
        if isinstance(scale, float):
            return leaf if scale else jax.lax.stop_gradient(leaf)
        return jnp.where(scale > 0, leaf, jax.lax.stop_gradient(leaf))

    return jax.tree.map(stopped, params, step_scales(config, params))


def scale_steps(config: OptimizerConfig) -> optax.GradientTransformation:
    """Steps times `step_scales`."""
    if all_move(config):
        return optax.identity()

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(
            lambda step, scale: step * scale, steps, step_scales(config, params)
        ), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
