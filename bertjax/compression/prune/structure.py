"""Cutting: a smaller dense model that has some of another model's layers, heads and units.

Each layer loses its own ones. In a run each loses the same number, because the layers are one
stack; in an ONNX program they need not.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.functional import LAYERS, Params

# Axis of the heads in the parameters of each module of one layer: of its kernel and of its bias.
_QUERIES = ("query", "gate", "relative_query", "relative_key")
_KEYS = ("key", "value")


class Kept(NamedTuple):
    """What stays of a model; numbers count from 0 and ascend."""

    layers: np.ndarray
    """Numbers of the layers, int64 [N]."""
    heads: Sequence[np.ndarray]
    """Numbers of the groups of heads of each of N layers, int64 [G]; without `num_key_value_heads`
    a group is one head. With `share_layers` N is 1 here.
    """
    units: Sequence[np.ndarray]
    """Numbers of the feed-forward units of each layer, int64 [F]; as for `heads`."""


def everything(config: ModelConfig) -> Kept:
    """Return what stays if nothing is pruned."""
    return whole_layers(config, np.arange(config.num_hidden_layers))


def whole_layers(config: ModelConfig, layers: np.ndarray) -> Kept:
    """Return what stays if only some layers do, each with all of its parts."""
    heads, units = np.arange(config.key_value_heads), np.arange(config.intermediate_size)
    stack = 1 if config.share_layers else len(layers)
    return Kept(layers, [heads] * stack, [units] * stack)


def stack_size(config: ModelConfig) -> int:
    """Return the number of layers that have parameters of their own."""
    return 1 if config.share_layers else config.num_hidden_layers


def cut(config: ModelConfig, params: Params, kept: Kept) -> tuple[ModelConfig, Params]:
    """Return the model that is left, with smaller matrices; `kept` says which parts.

    Heads and units belong to the layers that are kept. Other groups of parameters, such as heads of
    tasks, stay as they are. Raises `UserError` for a model whose parts cannot be taken out.
    """
    smaller = _smaller_config(config, kept)
    old = flatten_dict(params, sep="/")
    new = {path: np.stack(layers) for path, layers in cut_layers(config, old, kept).items()}
    return smaller, unflatten_dict({**old, **new}, sep="/")


def cut_layers(
    config: ModelConfig, params: Mapping[str, Any], kept: Kept
) -> dict[str, list[np.ndarray]]:
    """Return what is left of the parameters of the layers, one array a layer, by their path.

    `params` are flat, such as `encoder/layers/mlp/up/kernel`.
    """
    queries = _within(kept.heads, config.num_attention_heads // config.key_value_heads)
    index = {"queries": queries, "heads": kept.heads, "units": kept.units}
    new: dict[str, list[np.ndarray]] = {}
    for path, leaf in params.items():
        if not path.startswith(LAYERS):
            continue
        layers = list(np.asarray(leaf))
        if not config.share_layers:
            layers = [layers[number] for number in kept.layers]
        which, axis = _cut_axis(path.removeprefix(LAYERS))
        if which:
            pairs = zip(layers, index[which], strict=True)
            layers = [np.take(layer, numbers, axis - 1) for layer, numbers in pairs]
        new[path] = layers
    return new


def _cut_axis(path: str) -> tuple[str, int]:
    """Return what an axis of a layer's parameter numbers, and this axis; nothing for others."""
    module, _, name = path.rpartition("/")
    sublayer, _, part = module.partition("/")
    is_kernel = name == "kernel"
    # Kernels are [in, out] without the axis of the layers, and a bias has the axes of `out`.
    out = 2 if is_kernel else 1
    if sublayer == "attention" and part in _QUERIES:
        return "queries", out
    if sublayer == "attention" and part in _KEYS:
        return "heads", out
    if sublayer == "attention" and part == "output" and is_kernel:
        return "queries", 1
    if sublayer == "mlp" and part in ("up", "gate"):
        return "units", out
    if sublayer == "mlp" and part == "down" and is_kernel:
        return "units", 1
    return "", 0


def _within(groups: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Return the numbers of heads of queries from those of their groups of `size` heads."""
    within = np.arange(size)[None, :]
    return [(own[:, None] * size + within).reshape(-1) for own in groups]


def part_costs(config: ModelConfig, length: int) -> tuple[float, float]:
    """Return the FLOPs for each token of a group of heads and of a unit, in rows of this length."""
    share = config.num_attention_heads // config.key_value_heads
    queries = 3 if config.value_gate else 2
    kernels = (queries * share + 2) * config.hidden_size * config.head_width
    # Products of a query with each key, and of the probabilities with the values.
    products = 2 * share * length * config.head_width
    matrices = 3 if config.feed_forward == "gated" else 2
    return 2.0 * (kernels + products), 2.0 * matrices * config.hidden_size


def head_columns(config: ModelConfig, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the columns of each layer's groups of heads among those of all heads, int64 [m]."""
    share = config.num_attention_heads // config.key_value_heads
    return _within(groups, share * config.head_width)


def _smaller_config(config: ModelConfig, kept: Kept) -> ModelConfig:
    # Of a stack: each layer has as many.
    groups, units = len(kept.heads[0]), len(kept.units[0])
    check_parts(
        config,
        heads=groups < config.key_value_heads,
        units=units < config.intermediate_size,
        layers=len(kept.layers) < config.num_hidden_layers,
    )
    changes: dict[str, Any] = {
        "num_hidden_layers": len(kept.layers),
        "intermediate_size": units,
    }
    if groups < config.key_value_heads:
        share = config.num_attention_heads // config.key_value_heads
        changes["num_attention_heads"] = groups * share
        changes["attention_head_size"] = config.head_width
        changes["num_key_value_heads"] = groups if config.num_key_value_heads else 0
    smaller = dataclasses.replace(config, **changes)
    _check_pattern(config, smaller, kept.layers)
    return smaller


def check_parts(config: ModelConfig, *, heads: bool, units: bool, layers: bool) -> None:
    """Raise `UserError` where a model cannot lose heads, feed-forward units or layers."""
    check(
        not (heads or units) or not config.norm_inside,
        where="model.norm_inside",
        found=config.norm_inside,
        expected="false: a norm over all heads or units gives other values where some are gone",
    )
    check(
        not layers or not config.layer_mix,
        where="model.layer_mix",
        found=config.layer_mix,
        expected="false: its weights are for the outputs of all layers",
    )


def _check_pattern(config: ModelConfig, smaller: ModelConfig, layers: np.ndarray) -> None:
    """Raise `UserError` where a kept layer would compute something else in its new place."""
    check(
        config.first_norm or layers[0] == 0,
        where="layers",
        found=", ".join(map(str, layers)),
        expected="layer 0 among them, because only the first layer has no norm before it",
    )
    kinds = [config.is_global(int(layer)) for layer in layers]
    check(
        kinds == list(smaller.attends_globally),
        where="layers",
        found=", ".join(map(str, layers)),
        expected=(
            f"layers of which every {config.global_attn_every_n_layers}. is global as before "
            "(model.global_attn_every_n_layers)"
        ),
    )
