"""The changes of a model that is pruned: fewer layers, then fewer heads and feed-forward units."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from bertjax.compression.prune.choice import (
    counts_by_layer,
    counts_by_layer_within,
    counts_within,
    kept_count,
    most_important,
)
from bertjax.compression.prune.examples import Examples, Source
from bertjax.compression.prune.importance import (
    MaskGradients,
    Method,
    importance,
    mask_gradients,
)
from bertjax.compression.prune.layers import LayerChoice, kept_by_loss, named_layers, spread
from bertjax.compression.prune.refit import grams, refitted
from bertjax.compression.prune.structure import (
    Kept,
    check_parts,
    cut,
    everything,
    part_costs,
    stack_size,
    whole_layers,
)
from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE
from bertjax.progress import Progress
from bertjax.types import Batch


@dataclass(frozen=True)
class PruneOptions:
    """What is pruned; with the default options nothing is."""

    heads: float = 0.0
    """Share of the attention heads of each layer."""
    mlp: float = 0.0
    """Share of the feed-forward units of each layer."""
    flops: float = 0.0
    """Share of the FLOPs of the layers, in place of `heads` and `mlp`: the numbers of heads and
    units are those that lose the least importance.
    """
    layers: str = ""
    """Layers that stay: a number of them, or their numbers from 0 on; empty: all."""
    choose_layers: LayerChoice = "spread"
    """Which layers stay, if `layers` is a number."""
    method: Method = "fisher"
    """Importance of heads and units."""
    refit: bool = True
    """Solve the last linear layers of the sublayers anew for the heads and units that stay."""
    batches: int = 32
    """Batches of training data, of up to 32 examples each, that importance is measured on."""
    seed: int = 0
    """Seed that draws these batches."""
    multiple: int = 1
    """The number of units that stay is a multiple of this."""
    by_layer: bool = False
    """Each layer loses as many heads and units as it can spare: the shares are those of all layers
    together. Only an ONNX program has such a model (`by_layer.write_pruned_program`).
    """


def check_options(options: PruneOptions, config: ModelConfig) -> None:
    """Raise `UserError` for options that the model does not allow, before it is loaded."""
    # Of a model by layer, one in each layer stays anyway.
    groups = config.key_value_heads * (stack_size(config) if options.by_layer else 1)
    kept_count(groups, options.heads, "--heads")
    check(options.multiple > 0, where="--multiple", found=options.multiple, expected="1 or more")
    kept_count(config.intermediate_size, options.mlp, "--mlp", options.multiple)
    kept_count(config.intermediate_size, options.flops, "--flops")
    check(
        not options.flops or not (options.heads or options.mlp or options.multiple > 1),
        where="--flops",
        found=options.flops,
        expected="no --heads, --mlp or --multiple beside it: it says their numbers",
    )
    check(
        not options.by_layer or options.multiple == 1,
        where="--multiple",
        found=options.multiple,
        expected="none beside --by-layer",
    )
    check(
        not options.by_layer or options.heads or options.mlp or options.flops,
        where="--by-layer",
        found="no heads or units to prune",
        expected="--heads, --mlp or --flops",
    )
    check(options.batches > 0, where="--batches", found=options.batches, expected="1 or more")
    check(0 <= options.seed < 2**32, where="--seed", found=options.seed, expected="0 to 2^32 - 1")
    if options.layers:
        named_layers(options.layers, config)


class Model(NamedTuple):
    """A model between two changes."""

    source: Source
    config: ModelConfig
    params: Params
    kept: dict[str, Any]
    changes: list[str]


def with_layers(model: Model, options: PruneOptions, examples: Examples | None) -> Model:
    """Return the model with the layers that `options.layers` names or counts."""
    config, params = model.config, model.params
    named = named_layers(options.layers, config)
    if isinstance(named, list):
        layers, how = np.array(named), "as given"
    elif options.choose_layers == "loss" and not config.share_layers:
        assert examples is not None
        check_parts(config, heads=False, units=False, layers=True)
        loss = partial(_loss_of, examples.objective)
        layers = kept_by_loss(
            config, params, named, jax.jit(loss, static_argnums=0), examples.batches
        )
        how = "without which the loss grows most"
    elif options.choose_layers == "first" or config.share_layers:
        layers, how = np.arange(named), "the first"
    else:
        layers, how = spread(config.num_hidden_layers, named), "evenly spaced"
    smaller, smaller_params = cut(config, params, whole_layers(config, layers))
    model.changes.append(
        f"layers: {config.num_hidden_layers} before, {len(layers)} now, {how}: "
        f"{', '.join(map(str, layers))}"
    )
    kept = {**model.kept, "layers": layers.tolist()}
    return model._replace(config=smaller, params=smaller_params, kept=kept)


def _loss_of(objective: Any, config: ModelConfig, params: Params, batch: Batch) -> Array:
    """Return the loss of a model without dropout, whatever the number of its layers."""
    own = dataclasses.replace(objective, model=config)
    sums = own.sums(params, batch, key=None, layout=ANYWHERE)
    return own.loss(sums, own.counts(batch))


def with_heads_and_units(
    model: Model, options: PruneOptions, examples: Examples, progress: Progress
) -> Model:
    """Return the model without the heads and units that matter least on the examples."""
    parts, whole = chosen_parts(model, options, examples, progress)
    before = model.config
    smaller, params = cut(before, whole.params, parts)
    whole.changes.append(
        f"heads of each layer: {before.num_attention_heads} before, "
        f"{smaller.num_attention_heads} now, of width {smaller.head_width}"
    )
    whole.changes.append(
        f"feed-forward units of each layer: {before.intermediate_size:,} before, "
        f"{smaller.intermediate_size:,} now"
    )
    whole.changes.append(chosen_by(options))
    return whole._replace(config=smaller, params=params)


def chosen_by(options: PruneOptions) -> str:
    """Return in words how heads and units were chosen."""
    refit = ", last linear layers refitted" if options.refit else ""
    return f"chosen by: {options.method}{refit}"


def chosen_parts(
    model: Model, options: PruneOptions, examples: Examples, progress: Progress
) -> tuple[Kept, Model]:
    """Return which heads and units stay, and the model with all of them, refitted for these."""
    config = model.config
    objective = dataclasses.replace(examples.objective, model=config)  # type: ignore[type-var]
    gradients = mask_gradients(config, objective, model.params, examples.batches, progress)
    groups, units = _counts(config, options, gradients, examples.length)
    fewer_heads = groups.sum() < groups.size * config.key_value_heads
    fewer_units = units.sum() < units.size * config.intermediate_size
    check_parts(config, heads=fewer_heads, units=fewer_units, layers=False)
    parts, kept = everything(config), dict(model.kept)
    if fewer_heads:
        parts = parts._replace(heads=most_important(gradients.heads, groups, options.method))
        kept["heads"] = [own.tolist() for own in parts.heads]
    if fewer_units:
        parts = parts._replace(units=most_important(gradients.units, units, options.method))
        kept["units"] = [own.tolist() for own in parts.units]
    params = model.params
    if options.refit:
        products = grams(config, objective, params, examples.batches, progress)
        params = refitted(config, params, parts, products)
    return parts, model._replace(params=params, kept=kept)


def _counts(
    config: ModelConfig, options: PruneOptions, gradients: MaskGradients, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many heads and units of each layer stay, int64 [N] each."""
    stack = stack_size(config)
    heads, units = (
        importance(gradients.heads, options.method),
        importance(gradients.units, options.method),
    )
    costs = part_costs(config, length)
    if options.flops and options.by_layer:
        return counts_by_layer_within(heads, units, costs, options.flops)
    if options.flops:
        uniform = counts_within(heads, units, costs, options.flops)
        return np.full(stack, uniform[0]), np.full(stack, uniform[1])
    if options.by_layer:
        return counts_by_layer(heads, options.heads, "--heads"), counts_by_layer(
            units, options.mlp, "--mlp"
        )
    kept_heads = kept_count(config.key_value_heads, options.heads, "--heads")
    kept_units = kept_count(config.intermediate_size, options.mlp, "--mlp", options.multiple)
    return np.full(stack, kept_heads), np.full(stack, kept_units)
