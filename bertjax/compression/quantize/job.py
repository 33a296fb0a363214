"""The work of `bertjax quantize` on one run: export, quantize, measure, and write the card."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from etils import epath

from bertjax.compression.card import (
    Card,
    Variant,
    write_card,
)
from bertjax.compression.figures import Figure, Measure, Predict
from bertjax.compression.gate import check_loss, loss_text, relative_loss
from bertjax.compression.held_out import measure_of
from bertjax.compression.latency import Latency, Timed, measure_latency
from bertjax.compression.measuring import Measuring
from bertjax.compression.quantize.calibration import calibration_rows
from bertjax.compression.quantize.graph_weights import (
    Weight,
    check_types,
    quantizable_weights,
    read_graph,
    stored_bytes,
    untie,
)
from bertjax.compression.quantize.onnx_quantizer import Rows, quantize_file
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.quantize.sensitivity import (
    errors_of_weights,
    keep_counts,
    relative_error,
    some_rows,
)
from bertjax.compression.runtimes.process import RuntimeModel, available_threads, opened
from bertjax.errors import check
from bertjax.interop.export_model import export_model
from bertjax.interop.programs.onnx.export import PROGRAM, WEIGHTS
from bertjax.progress import Progress
from bertjax.storage.output_record import RECORD
from bertjax.training import checkpoint

log = logging.getLogger("bertjax")


class _Attempt(NamedTuple):
    """A quantized file and what was found of it."""

    folder: Path
    kept: tuple[str, ...]
    types: Mapping[str, int]
    figure: Figure


@dataclass(frozen=True)
class Job:
    """One model on its way to a quantized one."""

    source: str
    run: epath.Path
    options: QuantizeOptions
    measuring: Measuring
    bound: float
    progress: Progress

    @property
    def threads(self) -> int:
        return self.measuring.threads or available_threads()

    def write(self, part: Path, target: str, license: str) -> None:
        """Write the files of the output into the empty folder `part`; `target` is its name."""
        asked = self.measuring
        measure = measure_of(self.run, task=asked.task, sts=asked.sts, pooling=asked.pooling)
        # Before the model is exported: a text that cannot be used is told at once.
        rows = self._calibration()
        scratch = part / "scratch"
        scratch.mkdir()
        exact = scratch / "float32"
        export_model(self.run, exact, "onnx", task=asked.task, outputs=(measure.output,))
        with opened(exact, "onnx", threads=self.threads) as model:
            predict = _predict(model, measure.output)
            before = measure.figure(predict)
            log.info("float32: %s %.4f", before.name, before.value)
            attempt = self._attempt(exact, scratch, measure, before, predict, rows)
            what = f"{self.options.name}, activations {self.options.activations}"
            check_loss(what, before, attempt.figure, self.bound)
            latency = self._latency(model, attempt, measure.output)
            runtime = model.version
        variants = [
            Variant("float32", runtime, stored_bytes(exact), before, latency["float32"]),
            Variant(
                self.options.name,
                runtime,
                stored_bytes(attempt.folder),
                attempt.figure,
                latency["int8"],
            ),
        ]
        # The sizes above are of files that move now.
        _put_files(part, exact, attempt.folder)
        write_card(epath.Path(part), self._card(variants, attempt, target, license))
        shutil.rmtree(scratch)

    def _attempt(
        self,
        exact: Path,
        scratch: Path,
        measure: Measure,
        before: Figure,
        predict: Predict,
        rows: Rows,
    ) -> _Attempt:
        """Quantize all weights, and fewer of them as long as the figure is out of bounds."""
        source = _untied(exact, scratch)
        weights = quantizable_weights(read_graph(source))
        check(
            len(weights) > 0,
            where=self.source,
            found="no matrix that can be quantized",
            expected="one or more",
        )
        written = _Quantizer(self.options, source, weights, rows, self.threads)
        attempt = written.attempt(scratch / "kept0", (), measure)
        most = min(self.options.float_layers, len(weights) - 1)
        if not most or relative_loss(before, attempt.figure) <= self.bound:
            return attempt
        log.info("%s: looking for what to keep in float", loss_text(before, attempt.figure))
        some = some_rows(measure.batches())
        outputs = [predict(inputs) for inputs in some]

        def error(folder: Path, weight: Weight) -> float:
            written.write(folder, [weight])
            with opened(folder, "onnx", threads=self.threads) as model:
                return relative_error(outputs, some, _predict(model, measure.output))

        errors = errors_of_weights(weights, error, scratch, self.progress)
        worst = sorted(errors, key=lambda name: -errors[name])
        for count in keep_counts(most):
            attempt = written.attempt(scratch / f"kept{count}", tuple(worst[:count]), measure)
            log.info("%d in float: %s", count, loss_text(before, attempt.figure))
            if relative_loss(before, attempt.figure) <= self.bound:
                break
        return attempt

    def _calibration(self) -> Rows:
        options = self.options
        if options.activations != "static":
            return ()
        count = options.calibration_rows
        return calibration_rows(self.run, options.calibration, count, self.measuring.task)

    def _latency(
        self, model: RuntimeModel, attempt: _Attempt, output: str
    ) -> dict[str, tuple[Latency, ...]]:
        if not self.measuring.seconds:
            return {"float32": (), "int8": ()}
        config = checkpoint.read_checkpoint_config(checkpoint.find_checkpoint(self.run)[1]).model
        with opened(attempt.folder, "onnx", threads=self.threads) as quantized:
            models = {"float32": Timed(model, [output]), "int8": Timed(quantized, [output])}
            return measure_latency(
                models, config.vocab_size, config.max_length, seconds=self.measuring.seconds
            )

    def _card(self, variants: list[Variant], attempt: _Attempt, target: str, license: str) -> Card:
        options = self.options
        notes = []
        if attempt.kept:
            notes.append(
                f"Kept in float, since their measured errors are the largest:"
                f" {', '.join(attempt.kept)}."
            )
        stored = ", ".join(f"{kind} {size:,} bytes" for kind, size in attempt.types.items())
        notes.append(f"Stored tensors: {stored}.")
        data = [f"measured on {variants[1].figure.measured_on}"]
        if options.activations == "static":
            data.append(f"calibrated on {options.calibration or 'training data of the run'}")
        settings = {**asdict(options), **asdict(self.measuring)}
        words = ["bertjax quantize", self.source, "--to", target, *_words(options)]
        return Card(
            title=f"{target}: {options.name}",
            command=" ".join([*words, *_words(self.measuring)]),
            source=self.source,
            settings=settings,
            data=data,
            before=variants[0],
            after=variants[1],
            max_loss=self.bound,
            license=license,
            threads=self.threads,
            tags=("onnx", f"int{options.bits}"),
            notes=notes,
        )


@dataclass(frozen=True)
class _Quantizer:
    """A float32 file, from which files with integers are made."""

    options: QuantizeOptions
    source: Path
    weights: Sequence[Weight]
    calibration: Rows
    threads: int

    def write(self, folder: Path, weights: Sequence[Weight]) -> None:
        """Write the file with these weights as integers into a folder."""
        external = (self.source.parent / WEIGHTS).exists()
        target = folder / PROGRAM
        quantize_file(
            self.source,
            target,
            self.options,
            weights,
            calibration=self.calibration,
            external=external,
        )

    def attempt(self, folder: Path, kept: tuple[str, ...], measure: Measure) -> _Attempt:
        """Write a file with all weights as integers but the `kept` ones, load it and measure it."""
        folder.mkdir()
        self.write(folder, [weight for weight in self.weights if weight.name not in kept])
        types = check_types(folder / PROGRAM, self.weights, kept)
        with opened(folder, "onnx", threads=self.threads) as model:
            figure = measure.figure(_predict(model, measure.output))
        return _Attempt(folder, kept, types, figure)


def _untied(exact: Path, scratch: Path) -> Path:
    """Return the file to quantize: the exported one, or one without transposed tables."""
    if (exact / WEIGHTS).exists():
        return exact / PROGRAM
    folder = scratch / "untied"
    folder.mkdir()
    return folder / PROGRAM if untie(exact / PROGRAM, folder / PROGRAM) else exact / PROGRAM


def _predict(model: RuntimeModel, output: str) -> Predict:
    return lambda inputs: model.predict(inputs, [output])[output]


def _put_files(part: Path, exact: Path, quantized: Path) -> None:
    """Move the quantized program into the output, and what lies beside the float32 one."""
    for file in quantized.iterdir():
        file.rename(part / file.name)
    for file in exact.iterdir():
        if file.name not in (PROGRAM, WEIGHTS, RECORD):
            file.rename(part / file.name)


def _words(choices: QuantizeOptions | Measuring) -> list[str]:
    """Return the options that are not the defaults, as words of a command line."""
    words = []
    for each in fields(choices):
        value = getattr(choices, each.name)
        if value != each.default:
            words += [f"--{each.name.replace('_', '-')}", str(value)]
    return words
