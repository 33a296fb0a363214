"""A larger model made from a smaller one: wider by tiling its weights, deeper by repeating layers.

So ModernBERT-large began from ModernBERT-base (arXiv 2412.13663, section 2.2). The tiling is that
of github.com/AnswerDotAI/ModernBERT, `tile_weights_from_middle`; the depth is that of Gopher's
warm start (arXiv 2112.11446, appendix).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import LAYERS, Params
from bertjax.parallel import memory

# Its scale and bias are for the outputs of the heads, one head after another.
OF_HEADS = "attention/inner_norm/"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a larger model; 0 leaves a size as it is."""

    hidden_size: int = 0
    """Width D of the hidden states. The width of an attention head stays."""
    num_hidden_layers: int = 0
    """Number of layers."""
    intermediate_size: int = 0
    """Width F of the feed-forward sublayer."""
    num_attention_heads: int = 0
    """Number of heads: hidden_size divided by the width of a head, which is what 0 means."""


def extend_sizes(config: ModelConfig, params: Params, sizes: Sizes) -> tuple[ModelConfig, Params]:
    """Return a larger model whose parameters are those of the model, repeated.

    Along each axis that grows, the smaller tensor is in the middle, and what is around it goes on
    as if the tensor repeated itself. Heads are repeated whole, together with the heads of keys and
    values that they share. Layer i of N is a copy of the layer i x M / N, rounded, of the M layers
    there were. No number is scaled, and nothing is random: the larger model computes something
    else, from which training goes on faster than from random numbers.

    Raises `UserError` for a size that is smaller than it was or beyond the memory, for heads of
    another width, and for more layers of a model with `layer_mix`, whose weights have no layer to
    come from.
    """
    larger = _larger_config(config, sizes)
    axes = flatten_dict(functional.logical_axes(larger), sep="/")
    shapes = flatten_dict(functional.shapes(larger), sep="/")
    _check_memory(shapes)
    old = flatten_dict(params, sep="/")
    new: dict[str, Any] = {}
    heads = _heads_index(config, larger)
    for path, target in shapes.items():
        tensor = np.asarray(old[path])
        for axis, (before, after) in enumerate(zip(tensor.shape, target.shape, strict=True)):
            if before == after:
                continue
            if path.startswith(LAYERS) and axis == 0:
                index = layer_index(before, after)
            elif OF_HEADS in path:
                index = _within(heads, config.head_width)
            elif axes[path][axis] == "heads":
                index = heads
            else:
                index = middle_index(before, after)
            tensor = np.take(tensor, index, axis=axis)
        new[path] = jnp.asarray(tensor)
    return larger, unflatten_dict(new, sep="/")


def middle_index(before: int, after: int) -> np.ndarray:
    """Return the index in a smaller axis of each element of a larger one, int64 [after].

    >>> middle_index(3, 8).tolist()
    [1, 2, 0, 1, 2, 0, 1, 2]
    """
    first = (after - before) // 2
    return (np.arange(after) - first) % before


def layer_index(before: int, after: int) -> np.ndarray:
    """Return the number of the old layer that each new layer is a copy of, int64 [after].

    >>> layer_index(4, 6).tolist()
    [0, 1, 1, 2, 3, 3]
    """
    # Halves are rounded to even numbers, as in the code of ModernBERT. With more than twice as many
    # layers the last ones would be rounded to a layer that is not there.
    return np.minimum(np.round(np.arange(after) * before / after).astype(np.int64), before - 1)


def _larger_config(config: ModelConfig, sizes: Sizes) -> ModelConfig:
    width = sizes.hidden_size or config.hidden_size
    layers = sizes.num_hidden_layers or config.num_hidden_layers
    inner = sizes.intermediate_size or config.intermediate_size
    same_width = width == config.hidden_size
    usual = config.num_attention_heads if same_width else width // config.head_width
    heads = sizes.num_attention_heads or usual
    _check_not_smaller("hidden_size", width, config.hidden_size)
    _check_not_smaller("num_hidden_layers", layers, config.num_hidden_layers)
    _check_not_smaller("intermediate_size", inner, config.intermediate_size)
    check(
        # Pruned heads leave no width that the others could grow to.
        heads == config.num_attention_heads or config.attention_width == config.hidden_size,
        where="model.num_attention_heads",
        found=f"{heads}, for a model whose heads were pruned to {config.num_attention_heads}",
        expected="the same number: neither heads nor the hidden size of such a model grow",
    )
    check(
        heads * config.head_width == width or (heads == config.num_attention_heads and same_width),
        where="model.num_attention_heads",
        found=f"{heads} heads for a hidden size of {width}",
        expected=f"heads of width {config.head_width}, as they were",
    )
    check(
        not config.layer_mix or layers == config.num_hidden_layers,
        where="model.num_hidden_layers",
        found=layers,
        expected=f"{config.num_hidden_layers}, as it was, for a model with layer_mix",
    )
    group = config.num_attention_heads // config.key_value_heads
    check(
        heads % group == 0,
        where="model.num_attention_heads",
        found=heads,
        expected=f"a multiple of {group}, the heads that share keys and values",
    )
    return dataclasses.replace(
        config,
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=heads // group if config.num_key_value_heads else 0,
    )


def _check_not_smaller(name: str, size: int, before: int) -> None:
    check(
        size >= before,
        where=f"model.{name}",
        found=size,
        expected=f"{before} or more, as the model is never cut",
    )


def _check_memory(shapes: Mapping[str, Any]) -> None:
    """Raise `UserError` for parameters that this machine's memory cannot hold."""
    memory.check_fits(
        sum(4 * math.prod(leaf.shape) for leaf in shapes.values()),
        memory.host_bytes(),
        where="model",
        found="a model of these sizes",
        expected="a smaller one",
    )


def _heads_index(config: ModelConfig, larger: ModelConfig) -> np.ndarray:
    """Return the old head of queries of each new one: groups that share keys stay together."""
    group = config.num_attention_heads // config.key_value_heads
    return _within(middle_index(config.key_value_heads, larger.key_value_heads), group)


def _within(blocks: np.ndarray, size: int) -> np.ndarray:
    """Return the index of elements in blocks of `size`, from the index of the blocks."""
    return (blocks[:, None] * size + np.arange(size)[None, :]).reshape(-1)
