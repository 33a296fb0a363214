"""Smaller initial kernels where many outputs are added up, so that the sum does not grow with N."""

import math
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from bertjax.config import ModelConfig

# The kernels whose outputs are added to the residual, and those of the head for masked words
# (github.com/AnswerDotAI/ModernBERT, initialization "full_megatron").
LAST = (
    "encoder/layers/attention/output/kernel",
    "encoder/layers/mlp/down/kernel",
    "mlm/transform/kernel",
    "mlm/decoder",
)
FEED_FORWARD = "encoder/layers/mlp/"


def scaled(config: ModelConfig, params: Any) -> Any:
    """Return the new parameters, scaled as `config.scaled_init` says."""
    if config.scaled_init == "none":
        return params
    flat = flatten_dict(params, sep="/")
    for path, values in flat.items():
        if config.scaled_init == "depth" and path in LAST:
            flat[path] = values / math.sqrt(2 * config.num_hidden_layers)
        is_feed_forward = path.startswith(FEED_FORWARD) and path.endswith("/kernel")
        if config.scaled_init == "layer" and is_feed_forward:
            flat[path] = values / _roots(values)
    return unflatten_dict(flat, sep="/")


def _roots(values: Array) -> Array:
    """Return the root of 2 i for each layer i of stacked values, counted from 1."""
    numbers = jnp.arange(1, values.shape[0] + 1, dtype=jnp.float32)
    return jnp.sqrt(2 * numbers).reshape(-1, *(1,) * (values.ndim - 1))
