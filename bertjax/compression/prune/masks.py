"""Masks on attention heads and feed-forward units, as arrays beside the parameters.

A mask multiplies what goes into the last linear layer of a sublayer. With 0 a head or unit is gone,
with 1 it is as it was. Masks have an axis of examples, so that a gradient with respect to them is
that of each example by itself.
"""

from collections.abc import Callable, Iterator, Mapping
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
    return with_last_layers(params, {_NAME: masks.heads}, {_NAME: masks.units})


def with_last_layers(params: Params, output: Mapping[str, Any], down: Mapping[str, Any]) -> Params:
    """Return the parameters with more or other arrays in the last linear layer of each sublayer.

    `output` is that of attention, `down` that of the feed-forward sublayer.
    """
    encoder = params["encoder"]
    layers = encoder["layers"]
    attention, mlp = layers["attention"], layers["mlp"]
    changed = {
        **layers,
        "attention": {**attention, "output": {**attention["output"], **output}},
        "mlp": {**mlp, "down": {**mlp["down"], **down}},
    }
    return {**params, "encoder": {**encoder, "layers": changed}}


@contextmanager
def masked() -> Iterator[None]:
    """Let models computed in this context apply the masks that their parameters have."""
    with inputs_changed(_NAME, _masked):
        yield


@contextmanager
def inputs_changed(name: str, change: Callable[[Array, Linear], Array]) -> Iterator[None]:
    """Let each linear layer that has an array `name` beside its kernel read changed inputs."""

    def call(function: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if not isinstance(module, Linear) or context.method_name != "__call__":
            return function(*args, **kwargs)
        if not module.has_variable("params", name):
            return function(*args, **kwargs)
        return function(change(args[0], module), *args[1:], **kwargs)

    with nn.intercept_methods(call):
        yield


def _masked(x: Array, module: Linear) -> Array:
    mask: Array = module.get_variable("params", _NAME)
    # Several rows of a batch may be one example, such as the choices of multiple choice.
    by_row = jnp.repeat(mask, x.shape[0] // mask.shape[0], axis=0)
    by_column = jnp.repeat(by_row, x.shape[-1] // mask.shape[-1], axis=1)
    return x * by_column[:, None, :].astype(x.dtype)
