"""Pruning of a run's model: a smaller dense model of the most important parts."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from bertjax.compression.card import CARD, write_card
from bertjax.compression.measured_run import (
    Described,
    RunMeasuring,
    check_measuring,
    command_text,
    measured_card,
    opened_measure,
)
from bertjax.compression.prune.by_layer import RECORD, check_program, write_pruned_program
from bertjax.compression.prune.examples import Source, has_decoder, load_source, training_examples
from bertjax.compression.prune.reduction import (
    Model,
    PruneOptions,
    check_options,
    with_heads_and_units,
    with_layers,
)
from bertjax.config import ModelConfig
from bertjax.errors import UserError, check
from bertjax.finetuning.load import THRESHOLDS, thresholds_of
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.families.matching import matching_family
from bertjax.interop.programs.onnx.export import PROGRAM
from bertjax.progress import Progress, silent
from bertjax.storage import read_json, write_whole
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.tasks import registry
from bertjax.training import checkpoint
from bertjax.training.saved_model import facts_of_source, saved_checkpoint, write_model

CHANGES = "pruned"  # field of the checkpoint's `meta` with a line of text for each change
ORIGIN = "pruned_from"
MEASURED_ON = "importance measured on: "
KEPT = "kept"  # field with the numbers of the layers, heads and units that stay


class Pruned(NamedTuple):
    """A smaller model."""

    made: epath.Path
    """The checkpoint of the new run; the folder of an ONNX program, with `by_layer`."""
    source: epath.Path
    """The checkpoint that it was made from."""
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
    tokenizer, tasks and their heads. With `options.by_layer` the layers lose different numbers of
    heads and units, and `run_dir` becomes the folder of an ONNX program instead. With `measuring`
    both models are measured beside each other, and the new folder has a card.

    Raises `BoundError` if the figure loses more than it may, and `UserError` for an option that
    does not suit the model, if the data that tell what is important are not there, and if `run_dir`
    has other files than this call would write; in these cases nothing is written.
    """
    run_dir = place_of(run_dir)
    _, found = checkpoint.find_checkpoint(path)
    version = checkpoint.version_of_checkpoint(found)
    check_options(options, checkpoint.read_checkpoint_config(found).model)
    if measuring is not None:
        check_measuring(measuring)
    if options.by_layer:
        check_program(run_dir)
        if measuring is not None:
            measuring = dataclasses.replace(measuring, runtime="onnx")
    request = request_digest(
        "prune",
        source=version,
        options=dataclasses.asdict(options),
        measuring=dataclasses.asdict(measuring) if measuring is not None else None,
    )
    last = PROGRAM if options.by_layer else checkpoint.FOLDER
    with folder_written_whole(run_dir, "prune", request, last=last) as part:
        if part is not None:
            measure = opened_measure(found, measuring) if measuring is not None else None
            output = measure.output if measure is not None else ""
            task = measuring.task if measuring is not None else ""
            model, made = _write_pruned(found, part, options, output, task, progress)
            if measuring is not None and measure is not None:
                described = _described(found, run_dir, options, model.changes)
                card = measured_card(found, made, run_dir.name, measure, measuring, described)
                write_card(part, card)
    table = read_json(run_dir / CARD)["table"] if measuring is not None else []
    if options.by_layer:
        return Pruned(run_dir, found, list(read_json(run_dir / RECORD)["changes"]), table)
    pruned = saved_checkpoint(run_dir)
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


def _write_pruned(
    found: epath.Path,
    part: epath.Path,
    options: PruneOptions,
    output: str,
    task: str,
    progress: Progress,
) -> tuple[Model, epath.Path]:
    """Write the run or the program that is made from the checkpoint `found` into an empty folder.

    `output` is what a program is measured by, empty for its own, and `task` whose head it has.
    Returns the model with its changes, and the new checkpoint or the program's folder.
    """
    source = load_source(found)
    check(
        not has_decoder(source),
        where=str(found),
        found="a task that writes text",
        expected="tasks with a linear head: a decoder has the sizes of the encoder",
    )
    model = Model(source, source.config.model, source.params, {}, [])
    examples = None
    fewer = options.heads or options.mlp or options.flops
    if fewer or (options.layers and options.choose_layers == "loss"):
        examples = training_examples(source, options.batches, options.seed)
        model.changes.append(f"{MEASURED_ON}{examples.described}")
    if options.layers:
        model = with_layers(model, options, examples)
    if options.by_layer:
        assert examples is not None
        outputs = (output,) if output else ()
        return write_pruned_program(part, model, options, examples, outputs, task, progress), part
    if fewer:
        assert examples is not None
        model = with_heads_and_units(model, options, examples, progress)
    model.changes.append(_export_line(source, model.config))
    _write(part, model)
    return model, checkpoint.find_checkpoint(part)[1]


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


def _write(part: epath.Path, model: Model) -> None:
    source = model.source
    saved = checkpoint.read_checkpoint_config(source.folder)
    config = dataclasses.replace(saved, model=_with_own_settings(saved.model, model.config))
    facts: Mapping[str, Any] = {
        **facts_of_source(source.folder),
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
