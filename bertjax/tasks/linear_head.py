"""Linear heads of tasks, on the sentence vector or on every token; dropout comes before them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import ModelConfig
from bertjax.model import functional, random_bits
from bertjax.model.functional import TASKS, Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import linear

# Number that is folded into the step's key. The encoder uses the key without it, so the two draw
# different random numbers.
HEAD_DROPOUT = 1


def head_of(params: Params, name: str) -> Any:
    """Return the head of the task `name` among the parameters."""
    return params[TASKS][name]


def pooled_logits(
    config: ModelConfig,
    params: Params,
    head: Params,
    hidden_BxLxD: Array,
    input_mask: ArrayLike,
    *,
    key: Array | None,
    layout: Layout,
) -> Array:
    """Return the head's outputs on the sentence vector, float32 [B, outputs].

    If a `key` is given, dropout of rate `hidden_dropout_prob` is applied before the layer.
    """
    # The mean of the hidden states, which some poolers read, leaves padding out.
    pooled = functional.pool(config, params, hidden_BxLxD, input_mask=input_mask)
    # Dropout comes after the pooler, as in run_classifier.py of the original BERT.
    return linear(config, head, dropped(config, pooled, key, layout))


def token_logits(
    config: ModelConfig,
    params: Params,
    head: Params,
    hidden_BxLxD: Array,
    *,
    key: Array | None,
    layout: Layout,
    dropout: bool = True,
) -> Array:
    """Return the head's outputs on every token, float32 [B, L, outputs].

    If a `key` is given and `dropout` is true, dropout of rate `hidden_dropout_prob` is applied
    before the layer.
    """
    hidden = functional.pool_tokens(config, params, hidden_BxLxD)
    # As BertForTokenClassification of transformers has it.
    if dropout:
        hidden = dropped(config, hidden, key, layout)
    return linear(config, head, hidden)


def dropped(config: ModelConfig, x: Array, key: Array | None, layout: Layout) -> Array:
    """Return `x` after dropout of rate `config.hidden_dropout_prob`; `x` itself without a key."""
    rate = config.hidden_dropout_prob
    if key is None or rate == 0:
        return x
    bits = random_bits.threefry_words(jax.random.fold_in(key, HEAD_DROPOUT), x.shape, layout)
    keep = random_bits.uniform(bits) < 1 - rate
    # Divided, so that the expected value is the one without dropout.
    return jnp.where(keep, x / (1 - rate), 0)
