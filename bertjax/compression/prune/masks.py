"""Masks on attention heads and feed-forward units, as arrays beside the parameters.

A mask multiplies what goes into the last linear layer of a sublayer. With 0 a head or unit is gone,
with 1 it is as it was. Masks have an axis of examples, so that a gradient with respect to them is
that of each example by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bertjax.compression.prune.structure import stack_size
from bertjax.config import ModelConfig
from bertjax.model.functional import Params
from bertjax.model.layers import Linear

_NAME = "mask"  # beside `kernel` in the parameters of a linear layer


class Masks(NamedTuple):
    """The masks of a model; N is 1 if its layers share their parameters."""

    heads: Array
    """Of groups of heads that share keys and values, [N, B, G]."""
    units: Array
    """Of feed-forward units, [N, B, F]."""


def ones(config: ModelConfig, examples: int) -> Masks:
    """Return masks that change nothing."""
    stack = stack_size(config)
    return Masks(
        jnp.ones((stack, examples, config.key_value_heads)),
        jnp.ones((stack, examples, config.intermediate_size)),
    )


def with_masks(params: Params, masks: Masks) -> Params:
    """Return the parameters with the masks, for use within `masked`."""
    encoder = params["encoder"]
    layers = encoder["layers"]
    attention, mlp = layers["attention"], layers["mlp"]
    output = {**attention["output"], _NAME: masks.heads}
    down = {**mlp["down"], _NAME: masks.units}
    masked_layers = {
        **layers,
        "attention": {**attention, "output": output},
        "mlp": {**mlp, "down": down},
    }
    return {**params, "encoder": {**encoder, "layers": masked_layers}}


@contextmanager
def masked() -> Iterator[None]:
    """Let models computed in this context apply the masks that their parameters have."""
    with nn.intercept_methods(_apply_mask):
        yield


def _apply_mask(
    function: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    module = context.module
    is_linear = isinstance(module, Linear) and context.method_name == "__call__"
    if not is_linear or not module.has_variable("params", _NAME):
        return function(*args, **kwargs)
    x: Array = args[0]
    mask: Array = module.get_variable("params", _NAME)
    # Several rows of a batch may be one example, such as the choices of multiple choice.
    by_row = jnp.repeat(mask, x.shape[0] // mask.shape[0], axis=0)
    by_column = jnp.repeat(by_row, x.shape[-1] // mask.shape[-1], axis=1)
    return function(x * by_column[:, None, :].astype(x.dtype), *args[1:], **kwargs)
