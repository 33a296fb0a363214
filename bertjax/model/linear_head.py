"""A linear layer from the encoder's vectors to scores: the head that fine-tuning puts on it."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import ModelConfig
from bertjax.model.functional import Params


def init_linear(config: ModelConfig, key: Array, outputs: int) -> Params:
    """A linear layer `[D, outputs]`: truncated normal of `config.initializer_range`, zero biases;
    float32.
    """
    init = jax.nn.initializers.truncated_normal(config.initializer_range)
    shape = (config.hidden_size, outputs)
    return {"kernel": init(key, shape, jnp.float32), "bias": jnp.zeros(outputs, jnp.float32)}


def linear_axes() -> Params:
    """The logical axes of `init_linear`."""
    return {"kernel": PartitionSpec("embed", None), "bias": PartitionSpec(None)}


def linear(config: ModelConfig, head: Params, x: Array) -> Array:
    """`[..., D]` to `[..., outputs]` float32; the product in `config.dtype`."""
    product = jnp.dot(
        x.astype(config.dtype),
        head["kernel"].astype(config.dtype),
        preferred_element_type=jnp.float32,
    )
    return product + head["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
