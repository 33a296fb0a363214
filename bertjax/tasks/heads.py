"""The heads that fine-tuning puts on an encoder: one linear layer, on the sentence vector or on every token."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import Batch, Params
from bertjax.model.layout import Layout
from bertjax.train.objective import TASKS

HEAD_DROPOUT = 1  # folded into the step's key; the encoder has the key itself


def head_of(params: Params, name: str) -> Any:
    """The head of a task among the parameters."""
    return params[TASKS][name]


def init_linear(config: ModelConfig, key: Array, outputs: int) -> Params:
    """A linear layer `[D, outputs]`: truncated normal of `config.initializer_range`, zero biases; float32."""
    init = jax.nn.initializers.truncated_normal(config.initializer_range)
    shape = (config.hidden_size, outputs)
    return {"kernel": init(key, shape, jnp.float32), "bias": jnp.zeros(outputs, jnp.float32)}


def linear_axes() -> Params:
    """The logical axes of `init_linear`."""
    return {"kernel": PartitionSpec("embed", None), "bias": PartitionSpec(None)}


def linear(config: ModelConfig, head: Params, x: Array) -> Array:
    """`[..., D]` to `[..., outputs]` float32; the product in `config.dtype`."""
    product = jnp.dot(x.astype(config.dtype), head["kernel"].astype(config.dtype), preferred_element_type=jnp.float32)
    return product + head["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def pooled_scores(
    config: ModelConfig, params: Params, head: Params, batch: Batch, *, key: Array | None, layout: Layout
) -> Array:
    """`[B, outputs]` float32 from the sentence vector, with dropout of `hidden_dropout_prob` before the layer."""
    hidden = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
    pooled = functional.pool(config, params, hidden)
    return linear(config, head, dropped(config, pooled, key))


def token_scores(
    config: ModelConfig,
    params: Params,
    head: Params,
    batch: Batch,
    *,
    key: Array | None,
    layout: Layout,
    dropout: bool = True,
) -> Array:
    """`[B, L, outputs]` float32 from every token's hidden state, with `dropout` before the layer."""
    hidden = functional.encode(config, params, batch, key=key, layout=layout).hidden_BxLxD
    return linear(config, head, dropped(config, hidden, key) if dropout else hidden)


def dropped(config: ModelConfig, x: Array, key: Array | None) -> Array:
    """`x` after dropout of `config.hidden_dropout_prob`; as it is without a key."""
    rate: Any = config.hidden_dropout_prob
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(jax.random.fold_in(key, HEAD_DROPOUT), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
