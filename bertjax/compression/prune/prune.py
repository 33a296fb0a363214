"""Pruning of a run's model: a new run with a smaller dense model of the most important parts."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax import Array

from bertjax.compression.card import CARD, write_card
from bertjax.compression.measured_run import (
    Described,
    RunMeasuring,
    check_measuring,
    command_text,
    measured_card,
    opened_measure,
)
from bertjax.compression.prune.choice import counts_within, kept_count, least_important_pruned
from bertjax.compression.prune.examples import (
    Examples,
    Source,
    has_decoder,
    load_source,
    training_examples,
)
from bertjax.compression.prune.importance import Method, importance, mask_gradients
from bertjax.compression.prune.layers import LayerChoice, kept_by_loss, named_layers, spread
from bertjax.compression.prune.refit import grams, refitted
from bertjax.compression.prune.structure import check_parts, cut, everything, part_costs
from bertjax.config import ModelConfig
from bertjax.errors import UserError, check
from bertjax.finetuning.load import THRESHOLDS, thresholds_of
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.families.matching import matching_family
from bertjax.model.functional import TASKS, Params
from bertjax.model.layout import ANYWHERE
from bertjax.progress import Progress, silent
from bertjax.storage import read_json, write_whole
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.tasks import registry
from bertjax.training import checkpoint
from bertjax.training.provenance import data_record
from bertjax.training.saved_model import IMPORTED, saved_checkpoint, write_model
from bertjax.types import Batch

CHANGES = "pruned"  # field of the checkpoint's `meta` with a line of text for each change
ORIGIN = "pruned_from"
MEASURED_ON = "importance measured on: "
KEPT = "kept"  # field with the numbers of the layers, heads and units that stay
_OF_SOURCE = (data_record.DATA, data_record.ROWS, data_record.MANIFEST, TASKS, IMPORTED)
"""Fields of the source's `meta` that are true of the pruned model too."""


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


class Pruned(NamedTuple):
    """A new run with a smaller model."""

    checkpoint: epath.Path
    source: epath.Path
    """The checkpoint that the new run was made from."""
    changes: list[str]
    """One line of text for each change, and on which data it was chosen."""
    table: list[str]
    """Lines with bytes, figure and latency before and after; none if they were not measured."""


def prune_model(
    path: epath.PathLike,
    run_dir: epath.PathLike,
    options: PruneOptions,
    measuring: RunMeasuring | None = None,
    *,
    progress: Progress = silent,
) -> Pruned:
    """Make the new run `run_dir` from a run's or a checkpoint's model, without its least important
    layers, heads and feed-forward units.

    First the layers are chosen, then heads and units of the layers that stay. The new run keeps
    tokenizer, tasks and their heads. With `measuring` both models are measured beside each other,
    and the new run has a card.

    Raises `BoundError` if the figure loses more than it may, and `UserError` for an option that
    does not suit the model, if the data that tell what is important are not there, and if `run_dir`
    has other files than this call would write; in these cases nothing is written.
    """
    run_dir = place_of(run_dir)
    _, found = checkpoint.find_checkpoint(path)
    version = checkpoint.version_of_checkpoint(found)
    _check_options(options, checkpoint.read_checkpoint_config(found).model)
    if measuring is not None:
        check_measuring(measuring)
    request = request_digest(
        "prune",
        source=version,
        options=dataclasses.asdict(options),
        measuring=dataclasses.asdict(measuring) if measuring is not None else None,
    )
    with folder_written_whole(run_dir, "prune", request, last=checkpoint.FOLDER) as part:
        if part is not None:
            measure = opened_measure(found, measuring) if measuring is not None else None
            changes = _write_pruned(found, part, options, progress)
            if measuring is not None and measure is not None:
                described = _described(found, run_dir, options, changes)
                _, made = checkpoint.find_checkpoint(part)
                card = measured_card(found, made, run_dir.name, measure, measuring, described)
                write_card(part, card)
    pruned = saved_checkpoint(run_dir)
    table = read_json(run_dir / CARD)["table"] if measuring is not None else []
    return Pruned(pruned, found, list(checkpoint.read_meta(pruned)[CHANGES]), table)


def _described(
    found: epath.Path, run_dir: epath.Path, options: PruneOptions, changes: list[str]
) -> Described:
    values, defaults = dataclasses.asdict(options), dataclasses.asdict(PruneOptions())
    given = {name: value for name, value in values.items() if value != defaults[name]}
    return Described(
        command=command_text(f"bertjax prune {found}", {"to": run_dir, **given}),
        options=values,
        data=tuple(line for line in changes if line.startswith(MEASURED_ON)),
        notes=tuple(f"{line}." for line in changes),
        tag="pruned",
    )


def _check_options(options: PruneOptions, config: ModelConfig) -> None:
    """Raise `UserError` for options that the model does not allow, before it is loaded."""
    kept_count(config.key_value_heads, options.heads, "--heads")
    check(options.multiple > 0, where="--multiple", found=options.multiple, expected="1 or more")
    kept_count(config.intermediate_size, options.mlp, "--mlp", options.multiple)
    kept_count(config.intermediate_size, options.flops, "--flops")
    check(
        not options.flops or not (options.heads or options.mlp or options.multiple > 1),
        where="--flops",
        found=options.flops,
        expected="no --heads, --mlp or --multiple beside it: it says their numbers",
    )
    check(options.batches > 0, where="--batches", found=options.batches, expected="1 or more")
    check(0 <= options.seed < 2**32, where="--seed", found=options.seed, expected="0 to 2^32 - 1")
    if options.layers:
        named_layers(options.layers, config)


def _write_pruned(
    found: epath.Path, part: epath.Path, options: PruneOptions, progress: Progress
) -> list[str]:
    """Write the run that is made from the checkpoint `found` into the empty folder `part`.

    Returns a line of text for each change.
    """
    source = load_source(found)
    config = source.config.model
    check(
        not has_decoder(source),
        where=str(found),
        found="a task that writes text",
        expected="tasks with a linear head: a decoder has the sizes of the encoder",
    )
    model = _Model(source, config, source.params, {}, [])
    examples = None
    fewer = options.heads or options.mlp or options.flops
    if fewer or (options.layers and options.choose_layers == "loss"):
        examples = training_examples(source, options.batches, options.seed)
        model.changes.append(f"{MEASURED_ON}{examples.described}")
    if options.layers:
        model = _with_layers(model, options, examples)
    if fewer:
        assert examples is not None
        model = _with_heads_and_units(model, options, examples, progress)
    model.changes.append(_export_line(source, model.config))
    _write(part, model)
    return model.changes


class _Model(NamedTuple):
    """A model between two changes."""

    source: Source
    config: ModelConfig
    params: Params
    kept: dict[str, Any]
    changes: list[str]


def _with_layers(model: _Model, options: PruneOptions, examples: Examples | None) -> _Model:
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
    parts = everything(config)
    if not config.share_layers:
        parts = parts._replace(heads=parts.heads[layers], units=parts.units[layers])
    smaller, smaller_params = cut(config, params, parts._replace(layers=layers))
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


def _with_heads_and_units(
    model: _Model, options: PruneOptions, examples: Examples, progress: Progress
) -> _Model:
    config = model.config
    groups = kept_count(config.key_value_heads, options.heads, "--heads")
    units = kept_count(config.intermediate_size, options.mlp, "--mlp", options.multiple)
    objective = dataclasses.replace(examples.objective, model=config)  # type: ignore[type-var]
    gradients = mask_gradients(config, objective, model.params, examples.batches, progress)
    if options.flops:
        groups, units = counts_within(
            importance(gradients.heads, options.method),
            importance(gradients.units, options.method),
            part_costs(config, examples.length),
            options.flops,
        )
    fewer_heads, fewer_units = groups < config.key_value_heads, units < config.intermediate_size
    check_parts(config, heads=fewer_heads, units=fewer_units, layers=False)
    parts, kept = everything(config), dict(model.kept)
    if fewer_heads:
        heads = least_important_pruned(gradients.heads, groups, options.method)
        parts, kept["heads"] = parts._replace(heads=heads), heads.tolist()
    if fewer_units:
        chosen = least_important_pruned(gradients.units, units, options.method)
        parts, kept["units"] = parts._replace(units=chosen), chosen.tolist()
    params = model.params
    if options.refit:
        found = grams(config, objective, params, examples.batches, progress)
        params = refitted(config, params, parts, found)
    smaller, params = cut(config, params, parts)
    model.changes.append(
        f"heads of each layer: {config.num_attention_heads} before, "
        f"{smaller.num_attention_heads} now, of width {smaller.head_width}"
    )
    model.changes.append(
        f"feed-forward units of each layer: {config.intermediate_size:,} before, "
        f"{smaller.intermediate_size:,} now"
    )
    refit = ", last linear layers refitted" if options.refit else ""
    model.changes.append(f"chosen by: {options.method}{refit}")
    return model._replace(config=smaller, params=params, kept=kept)


def _export_line(source: Source, config: ModelConfig) -> str:
    """Return in words which formats have such a model."""
    tasks = source.tasks.tasks if source.tasks is not None else ()
    # An export has the head of one task.
    head = registry.kind_of(tasks[0]).task_head(tasks[0]) if tasks else None
    try:
        name = matching_family(config, head).name
    except UserError as error:
        return f"export: onnx, stablehlo and saved-model; not huggingface ({error})"
    return f"export: all formats; in huggingface it is a model of {name}"


def _write(part: epath.Path, model: _Model) -> None:
    source = model.source
    saved = checkpoint.read_checkpoint_config(source.folder)
    config = dataclasses.replace(saved, model=_with_own_settings(saved.model, model.config))
    record = checkpoint.read_meta(source.folder)
    facts: Mapping[str, Any] = {
        **{name: record[name] for name in _OF_SOURCE if name in record},
        ORIGIN: str(source.folder),
        CHANGES: model.changes,
        KEPT: model.kept,
    }
    write_model(part, config, model.params, source.tokenizer, facts)
    thresholds = thresholds_of(source.run_dir, source.folder)
    if thresholds:
        # They are no parameters, and stay what they were.
        content = json.dumps({"step": 0, THRESHOLDS: thresholds}, indent=1) + "\n"
        write_whole(part / checkpoint.RESULT, content.encode())


def _with_own_settings(saved: ModelConfig, pruned: ModelConfig) -> ModelConfig:
    """Return the pruned model with the settings that `for_inference` has changed."""
    return dataclasses.replace(pruned, scan_unroll=saved.scan_unroll)
