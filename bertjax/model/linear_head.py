"""Linear layer from the encoder's vectors to logits, which fine-tuning adds as a head."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import ModelConfig
from bertjax.model.functional import Params
from bertjax.model.matrix import Matrix


def init_linear(config: ModelConfig, key: Array, outputs: int) -> Params:
    """Return new parameters of a linear layer from D to `outputs`, float32.

    The kernel `[D, outputs]` is drawn from a truncated normal distribution with standard deviation
    `config.initializer_range`; the bias is 0.
    """
    # As the original BERT's heads (github.com/google-research/bert, run_classifier.py,
    # create_model).
    init = jax.nn.initializers.truncated_normal(config.initializer_range)
    shape = (config.hidden_size, outputs)
    return {"kernel": init(key, shape, jnp.float32), "bias": jnp.zeros(outputs, jnp.float32)}


def linear_axes() -> Params:
    """Return the logical axes of the parameters of `init_linear`."""
    # The outputs are not cut: the number of classes need not be a multiple of the devices.
    return {"kernel": PartitionSpec("embed", None), "bias": PartitionSpec(None)}


def linear(config: ModelConfig, head: Params, x: Array) -> Array:
    """Return logits `[..., outputs]`, float32, of vectors `[..., D]`.

    The product is in `config.dtype`, its sums and the bias in float32.
    """
    x, kernel = x.astype(config.dtype), head["kernel"]
    if isinstance(kernel, Matrix):
        product = kernel.product(x, inputs=1).astype(jnp.float32)
    else:
        product = jnp.dot(x, kernel.astype(config.dtype), preferred_element_type=jnp.float32)
    return product + head["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
