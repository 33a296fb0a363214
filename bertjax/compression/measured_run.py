"""A run that was made smaller, measured beside the run that it was made of."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from etils import epath

from bertjax.compression.card import UNKNOWN_LICENSE, Card, Variant, check_license, license_of
from bertjax.compression.figures import Figure, Measure
from bertjax.compression.gate import check_loss, parse_bound
from bertjax.compression.held_out import measure_of
from bertjax.compression.latency import Latency, Timed, measure_latency
from bertjax.compression.measuring import Measuring, predict_of
from bertjax.compression.runtimes.process import (
    Runtime,
    RuntimeModel,
    opened,
)
from bertjax.errors import check, require_package
from bertjax.interop.export_model import ExportFormat, export_model
from bertjax.interop.programs.onnx.export import PROGRAM
from bertjax.training import checkpoint

BEFORE, AFTER = "before", "after"
_FORMATS: Mapping[Runtime, ExportFormat] = {"stablehlo": "stablehlo", "onnx": "onnx"}
_WEIGHTS: Mapping[Runtime, str] = {"stablehlo": "params.npz", "onnx": "model.onnx*"}
"""Files with the numbers of a model."""


@dataclass(frozen=True)
class RunMeasuring(Measuring):
    """What a smaller run is measured on and in, and what it may lose."""

    max_loss: str = ""
    """Most that the figure may lose, in percent of its value before; empty: any loss."""
    runtime: Runtime = "stablehlo"
    """Where both models run to be measured: stablehlo (JAX) or onnx."""
    license: str = ""
    """Licence for the model card; by default the one that the source's README.md names."""


def check_measuring(asked: RunMeasuring) -> None:
    """Raise `UserError` for a bound, a licence or a runtime that cannot be."""
    if asked.max_loss:
        parse_bound(asked.max_loss)
    if asked.license:
        check_license(asked.license)
    check(
        asked.runtime in _FORMATS,
        where="--runtime",
        found=asked.runtime,
        expected=f"one of {', '.join(_FORMATS)}",
    )
    if asked.runtime == "onnx":
        require_onnx()


def require_onnx() -> None:
    """Raise `UserError` where a program of ONNX cannot be written or run."""
    for package in ("onnx", "onnxruntime"):
        require_package(package, extra="onnx")


class Described(NamedTuple):
    """What the card says of how a run was made."""

    command: str
    """The command that made it."""
    options: Mapping[str, Any]
    """The verb's own settings."""
    data: tuple[str, ...]
    notes: tuple[str, ...]
    tag: str


def command_text(verb: str, given: Mapping[str, Any]) -> str:
    """Return a verb such as `bertjax prune runs/base` with the options given to it."""
    words = [verb]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return " ".join(words)


def opened_measure(source: epath.Path, asked: RunMeasuring) -> Measure:
    """Return what both runs are measured on, before any of the work is done."""
    return measure_of(source, task=asked.task, sts=asked.sts, pooling=asked.pooling)


def measured_card(
    source: epath.Path,
    made: epath.Path,
    name: str,
    measure: Measure,
    asked: RunMeasuring,
    described: Described,
) -> Card:
    """Return the card of the checkpoint `made`, of the run `name`, that was made of `source`.

    `made` may also be the folder of an ONNX program. Both are opened by the runtime in processes of
    their own. Raises `BoundError` if the figure loses more than it may.
    """
    # A run may be in a store, where no runtime opens files.
    with tempfile.TemporaryDirectory() as scratch:
        before, after = _measured(source, made, epath.Path(scratch), measure, asked)
    bound = parse_bound(asked.max_loss) if asked.max_loss else None
    if bound is not None:
        check_loss(described.tag, before.figure, after.figure, bound)
    run_dir = source.parent.parent
    return Card(
        title=f"{name}: {described.tag}",
        command=described.command,
        source=str(source),
        settings={**described.options, **asdict(asked)},
        data=(*described.data, f"measured on {after.figure.measured_on}"),
        before=before,
        after=after,
        max_loss=bound,
        license=asked.license or license_of(run_dir) or UNKNOWN_LICENSE,
        threads=asked.threads_used,
        tags=(described.tag,),
        notes=described.notes,
    )


def _measured(
    source: epath.Path,
    made: epath.Path,
    scratch: epath.Path,
    measure: Measure,
    asked: RunMeasuring,
) -> tuple[Variant, Variant]:
    folders = {BEFORE: scratch / BEFORE, AFTER: scratch / AFTER}
    checkpoints = {BEFORE: source, AFTER: made}
    if is_program(made):
        folders[AFTER] = made
        del checkpoints[AFTER]
    for name, place in checkpoints.items():
        export_model(
            place,
            folders[name],
            _FORMATS[asked.runtime],
            task=asked.task,
            outputs=(measure.output,),
        )
    threads = asked.threads_used
    with (
        opened(folders[BEFORE], asked.runtime, threads=threads) as old,
        opened(folders[AFTER], asked.runtime, threads=threads) as new,
    ):
        models = {BEFORE: old, AFTER: new}
        figures: dict[str, Figure] = {}
        for name, model in models.items():
            figures[name] = measure.figure(predict_of(model, measure.output))
        latency = _latency(source, models, measure.output, asked.seconds)
        before, after = (
            Variant(
                name,
                models[name].version,
                _bytes_of(folders[name], asked.runtime),
                figures[name],
                latency[name],
            )
            for name in (BEFORE, AFTER)
        )
    return before, after


def is_program(folder: epath.Path) -> bool:
    """Return whether a folder is an ONNX program and no checkpoint."""
    return (folder / PROGRAM).exists()


def _latency(
    source: epath.Path, models: Mapping[str, RuntimeModel], output: str, seconds: float
) -> Mapping[str, tuple[Latency, ...]]:
    if not seconds:
        return dict.fromkeys(models, ())
    config = checkpoint.read_checkpoint_config(source).model
    timed = {name: Timed(model, [output]) for name, model in models.items()}
    return measure_latency(timed, config.vocab_size, config.max_length, seconds=seconds)


def _bytes_of(folder: epath.Path, runtime: Runtime) -> int:
    return sum(path.stat().length for path in folder.glob(_WEIGHTS[runtime]))
