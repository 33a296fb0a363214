"""Frozen parameters, and learning rates that fall with depth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bertjax.config import OptimizerConfig
from bertjax.model.functional import Params

FROZEN_GROUPS = {
    "none": (),
    "embeddings": ("embeddings",),
    "encoder": ("embeddings", "encoder", "pooler"),
}
"""The groups of parameters that each value of `optimizer.freeze` keeps as they are."""
PER_LAYER = ("layers", "mix")
"""The parameters of the encoder that have a first axis of layers, or of their sublayers."""
POSITIONS = ("relative", "relative_layer_norm")
"""The vectors of relative positions, which all layers read as they read the embeddings."""


def step_scales(config: OptimizerConfig, params: Params) -> Params:
    """Return the factor of each parameter's steps: a float, or `[N, 1, ...]` for stacked layers.

    A frozen parameter has the factor 0. With `layer_decay` d, layer n of 1..N has d**(N - n), the
    embeddings have d**N, those of relative positions too, and all that is above the layers has 1
    (arXiv 2006.05987, section 5).
    """
    num_layers = jax.tree.leaves(params["encoder"]["layers"])[0].shape[0]
    layer_scales = config.layer_decay ** np.arange(num_layers - 1, -1, -1.0)
    layer_scales[: config.freeze_layers] = 0
    frozen = FROZEN_GROUPS[config.freeze]
    if config.freeze_layers:
        # Everything below a frozen layer must stay as it is too.
        frozen += ("embeddings",)

    def scale(path: Any, leaf: Any) -> Any:
        group = path[0].key
        if group in frozen:
            return 0.0
        if group == "encoder" and path[1].key in PER_LAYER:
            # Layers that share their parameters have one, and `mix` two rows for each layer.
            per_layer = np.repeat(layer_scales, leaf.shape[0] // num_layers)
            return per_layer.astype(np.float32).reshape(-1, *(1,) * (len(leaf.shape) - 1))
        if group == "encoder" and path[1].key in POSITIONS:
            return 0.0 if "embeddings" in frozen else config.layer_decay**num_layers
        if group == "embeddings":
            return config.layer_decay**num_layers
        return 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def scales_are_one(config: OptimizerConfig) -> bool:
    """Return True if all `step_scales` are 1."""
    return config.layer_decay == 1 and not _freezes(config)


def _freezes(config: OptimizerConfig) -> bool:
    return config.freeze != "none" or config.freeze_layers > 0


def stop_frozen(config: OptimizerConfig, params: Params) -> Params:
    """Return `params`, where the frozen ones get no gradients.

    So the frozen parameters add nothing to the gradient norm that is clipped. If whole groups are
    frozen, the compiler also leaves out their part of the backward pass.
    """
    if not _freezes(config):
        return params

    def stopped(leaf: Any, scale: Any) -> Any:
        if isinstance(scale, float):
            return leaf if scale else jax.lax.stop_gradient(leaf)
        # The first axis counts layers, and some of these are frozen.
        return jnp.where(scale > 0, leaf, jax.lax.stop_gradient(leaf))

    return jax.tree.map(stopped, params, step_scales(config, params))


def scale_steps(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return the transformation that multiplies steps by `step_scales`."""
    if scales_are_one(config):
        return optax.identity()

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scales = step_scales(config, params)
        return jax.tree.map(lambda step, scale: step * scale, steps, scales), state

    return optax.GradientTransformation(init, update)
