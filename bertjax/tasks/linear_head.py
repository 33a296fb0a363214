"""What the linear heads of tasks are put on, the sentence vector or every token, and the dropout
before them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import TASKS, Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import linear
from bertjax.types import Batch

HEAD_DROPOUT = 1  # folded into the step's key; the encoder has the key itself


def head_of(params: Params, name: str) -> Any:
    """The head of a task among the parameters."""
    return params[TASKS][name]


def pooled_scores(
    config: ModelConfig,
    params: Params,
    head: Params,
    batch: Batch,
    *,
    key: Array | None,
    layout: Layout,
) -> Array:
    """`[B, outputs]` float32 from the sentence vector, with dropout of `hidden_dropout_prob` before
    the layer.
    """
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
