"""The work of `bertjax quantize` on one run: export, quantize, measure, and write the card."""

import logging
import shutil
from collections.abc import Mapping
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
from bertjax.compression.measuring import Measuring, predict_of
from bertjax.compression.quantize.calibration import calibration_rows
from bertjax.compression.quantize.form import Form
from bertjax.compression.quantize.onnx_form import OnnxForm
from bertjax.compression.quantize.onnx_quantizer import Rows
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.quantize.sensitivity import (
    errors_of_weights,
    keep_counts,
    relative_error,
    some_rows,
)
from bertjax.compression.quantize.stablehlo_form import StablehloForm
from bertjax.compression.runtimes.process import RuntimeModel, opened
from bertjax.errors import check
from bertjax.interop.export_model import export_model
from bertjax.progress import Progress
from bertjax.storage.output_record import RECORD
from bertjax.training import checkpoint

FLOAT, INTEGER = "float32", "integers"

log = logging.getLogger("bertjax")


class _Attempt(NamedTuple):
    """A quantized program and what was found of it."""

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

    def write(self, part: Path, target: str, license: str) -> None:
        """Write the files of the output into the empty folder `part`; `target` is its name."""
        asked = self.measuring
        measure = measure_of(self.run, task=asked.task, sts=asked.sts, pooling=asked.pooling)
        # Before the model is exported: a text that cannot be used is told at once.
        rows = self._calibration()
        scratch = part / "scratch"
        scratch.mkdir()
        exact = scratch / "float32"
        export_model(
            self.run, exact, self.options.format, task=asked.task, outputs=(measure.output,)
        )
        form = self._form(exact, scratch, measure.output, rows)
        with opened(exact, form.runtime, threads=self.measuring.threads_used) as model:
            predict = predict_of(model, measure.output)
            before = measure.figure(predict)
            log.info("float32: %s %.4f", before.name, before.value)
            attempt = self._attempt(form, scratch, measure, before, predict)
            what = f"{self.options.name}, activations {self.options.activations}"
            check_loss(what, before, attempt.figure, self.bound)
            latency = self._latency(form, model, attempt, measure.output)
            runtime = model.version
        variants = [
            Variant(FLOAT, runtime, form.stored_bytes(exact), before, latency[FLOAT]),
            Variant(
                self.options.name,
                runtime,
                form.stored_bytes(attempt.folder),
                attempt.figure,
                latency[INTEGER],
            ),
        ]
        # The sizes above are of files that move now.
        _put_files(part, exact, attempt.folder, form)
        write_card(epath.Path(part), self._card(variants, attempt, target, license))
        shutil.rmtree(scratch)

    def _form(self, exact: Path, scratch: Path, output: str, rows: Rows) -> Form:
        if self.options.format == "onnx":
            return OnnxForm(exact, scratch, self.options, rows)
        return StablehloForm(self.run, output, self.options, self.measuring.task, rows)

    def _attempt(
        self, form: Form, scratch: Path, measure: Measure, before: Figure, predict: Predict
    ) -> _Attempt:
        """Quantize all weights, and fewer of them as long as the figure is out of bounds."""
        weights = form.weights()
        check(
            len(weights) > 0,
            where=self.source,
            found="no matrix that can be quantized",
            expected="one or more",
        )
        attempt = self._measured(form, scratch / "kept0", (), measure)
        most = min(self.options.float_layers, len(weights) - 1)
        if not most or relative_loss(before, attempt.figure) <= self.bound:
            return attempt
        log.info("%s: looking for what to keep in float", loss_text(before, attempt.figure))
        some = some_rows(measure.batches())
        outputs = [predict(inputs) for inputs in some]

        def error(folder: Path, weight: str) -> float:
            form.write(folder, [weight])
            with opened(folder, form.runtime, threads=self.measuring.threads_used) as model:
                return relative_error(outputs, some, predict_of(model, measure.output))

        errors = errors_of_weights(weights, error, scratch, self.progress)
        worst = sorted(errors, key=lambda name: -errors[name])
        for count in keep_counts(most):
            kept = tuple(worst[:count])
            attempt = self._measured(form, scratch / f"kept{count}", kept, measure)
            log.info("%d in float: %s", count, loss_text(before, attempt.figure))
            if relative_loss(before, attempt.figure) <= self.bound:
                break
        return attempt

    def _measured(
        self, form: Form, folder: Path, kept: tuple[str, ...], measure: Measure
    ) -> _Attempt:
        """Write a program with all weights as integers but the `kept` ones; load and measure it."""
        folder.mkdir()
        form.write(folder, [name for name in form.weights() if name not in kept])
        with opened(folder, form.runtime, threads=self.measuring.threads_used) as model:
            types = form.check_types(folder, model, kept)
            figure = measure.figure(predict_of(model, measure.output))
        return _Attempt(folder, kept, types, figure)

    def _calibration(self) -> Rows:
        options = self.options
        if options.activations != "static":
            return ()
        count = options.calibration_rows
        return calibration_rows(self.run, options.calibration, count, self.measuring.task)

    def _latency(
        self, form: Form, model: RuntimeModel, attempt: _Attempt, output: str
    ) -> dict[str, tuple[Latency, ...]]:
        if not self.measuring.seconds:
            return {FLOAT: (), INTEGER: ()}
        config = checkpoint.read_checkpoint_config(checkpoint.find_checkpoint(self.run)[1]).model
        with opened(attempt.folder, form.runtime, threads=self.measuring.threads_used) as quantized:
            models = {FLOAT: Timed(model, [output]), INTEGER: Timed(quantized, [output])}
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
            threads=self.measuring.threads_used,
            tags=(options.format, f"int{options.bits}"),
            notes=notes,
        )


def _put_files(part: Path, exact: Path, quantized: Path, form: Form) -> None:
    """Move the quantized program into the output, and what lies beside the float32 one."""
    for file in quantized.iterdir():
        file.rename(part / file.name)
    for file in exact.iterdir():
        if file.name not in (*form.files, RECORD):
            file.rename(part / file.name)


def _words(choices: QuantizeOptions | Measuring) -> list[str]:
    """Return the options that are not the defaults, as words of a command line."""
    words = []
    for each in fields(choices):
        value = getattr(choices, each.name)
        if value != each.default:
            words += [f"--{each.name.replace('_', '-')}", str(value)]
    return words
