"""Bytes, figure and latency of a model's compressed forms beside PyTorch and ONNX, as one table.

    python benchmarks/small_models.py --run runs/sst2 --folder bench/sst2 --threads 2
    python benchmarks/small_models.py --run all-MiniLM-L6-v2 --sts pairs.tsv --folder bench/minilm

`--run` is a run, or a folder of `transformers`, which is imported. `--also NAME=FOLDER` adds one
more ONNX program, such as the export of a pruned run. Each model is in a process of its own; for
each shape they take turns. What is measured is appended to `results.jsonl` in the folder, and a
start with the same folder goes on after it. The machine should do nothing else meanwhile.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from reporting import Results

import bertjax
from bertjax.compression.figures import Measure
from bertjax.compression.gate import BoundError
from bertjax.compression.held_out import measure_of
from bertjax.compression.latency import Timed, cells, latency_of_shape, random_rows
from bertjax.compression.measuring import Measuring
from bertjax.compression.quantize.options import QuantizeOptions
from bertjax.compression.quantize.quantize import quantize
from bertjax.compression.runtimes.process import RuntimeModel, available_threads, opened
from bertjax.interop.import_model import import_model, is_external

PEER = "PyTorch float32"
FLOAT, PIPELINE = "ONNX float32", "transformers' pipeline"
WEIGHTS = ("model.onnx", "model.onnx.data", "model.safetensors")


class Form(NamedTuple):
    """A form of the model: its folder and the runtime that opens it."""

    folder: Path
    runtime: Any
    output: str


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    run = imported(options)
    measure = measure_of(run, task=options.task, sts=options.sts)
    results = Results(options.folder / "results.jsonl")
    forms = forms_of(options, run, measure, results)
    with ExitStack() as stack:
        models = {}
        for name, form in forms.items():
            context = opened(form.folder, form.runtime, threads=options.threads)
            models[name] = stack.enter_context(context)
        for name, form in forms.items():
            measure_figure(name, form, models[name], measure, results)
        measure_shapes(forms, models, run, options, results)
    print(table(list(forms), results))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--task", default="")
    parser.add_argument("--sts", default="")
    parser.add_argument("--max-loss", default="0.5%")
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--seconds", type=float, default=5.0, help="of each model and shape")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER")
    return parser.parse_args()


def imported(options: argparse.Namespace) -> Path:
    """The run of the model, imported once if it is a folder of `transformers`."""
    source, run = Path(options.run), options.folder / "run"
    if not is_external(epath.Path(source)):
        return source
    import_model(source, run)  # does nothing if it was made by the same call
    return run


def forms_of(
    options: argparse.Namespace, run: Path, measure: Measure, results: Results
) -> dict[str, Form]:
    """Write what is not there yet of all forms; a form out of bounds is noted and left out."""
    folder, output = options.folder, measure.output
    hub = folder / "transformers"
    bertjax.export_model(run, hub, "huggingface", task=options.task)
    exact = folder / "float32"
    bertjax.export_model(run, exact, "onnx", task=options.task, outputs=(output,))
    forms = {
        PEER: Form(hub, "transformers", output),
        PIPELINE: Form(hub, "pipeline", "answers"),
        FLOAT: Form(exact, "onnx", output),
    }
    for granularity in ("channel", "tensor"):
        choice = QuantizeOptions(granularity=granularity)  # type: ignore[arg-type]
        target = folder / f"int8-{granularity}"
        measuring = Measuring(
            max_loss=options.max_loss,
            task=options.task,
            sts=options.sts,
            seconds=0.0,
            threads=options.threads,
        )
        if results.newest(kind="refused", form=choice.name):
            continue
        try:
            quantize(run, target, choice, measuring)
            forms[choice.name] = Form(target, "onnx", output)
        except BoundError as error:
            results.add({"kind": "refused", "form": choice.name, "line": str(error)})
    for text in options.also:
        name, _, place = text.partition("=")
        forms[name] = Form(Path(place), "onnx", output)
    return forms


def measure_figure(
    name: str, form: Form, model: RuntimeModel, measure: Measure, results: Results
) -> None:
    if name == PIPELINE or results.newest(kind="figure", form=name):
        return
    figure = measure.figure(lambda inputs: model.predict(inputs, [form.output])[form.output])
    files = [form.folder / file for file in WEIGHTS]
    size = sum(file.stat().st_size for file in files if file.exists())
    entry = {"kind": "figure", "form": name, "bytes": size, "runtime": model.version}
    results.add({**entry, **figure.to_dict()})


def measure_shapes(
    forms: dict[str, Form],
    models: dict[str, RuntimeModel],
    run: Path,
    options: argparse.Namespace,
    results: Results,
) -> None:
    config = bertjax.saved_config(run).model
    timed = {name: Timed(model, [forms[name].output]) for name, model in models.items()}
    for batch_size, length in cells(config.max_length):
        shape = {"kind": "latency", "batch_size": batch_size, "length": length}
        # By turns or not at all: a shape that lacks one form is measured again for all.
        if all(results.newest(**shape, form=name) for name in forms):
            continue
        rows = random_rows(batch_size, length, config.vocab_size)
        for name, latency in latency_of_shape(timed, rows, seconds=options.seconds).items():
            times = {"median_ms": latency.median_ms, "p99_ms": latency.p99_ms}
            calls = {"calls": latency.calls, "threads": options.threads}
            results.add({**shape, "form": name, **times, **calls})


def table(names: list[str], results: Results) -> str:
    """The table in Markdown; times as median (99th percentile) ms, and PyTorch's median over it."""
    shapes = []
    for entry in results.entries:
        if entry["kind"] == "latency" and (entry["batch_size"], entry["length"]) not in shapes:
            shapes.append((entry["batch_size"], entry["length"]))
    titles = [f"{batch} x {length}" for batch, length in shapes]
    lines = [f"| form | bytes | figure | {' | '.join(titles)} |"]
    lines.append("| --- |" + " ---: |" * (2 + len(shapes)))
    for name in names:
        figure = results.newest(kind="figure", form=name)
        cells_of_row = [name, "", ""]
        if figure:
            cells_of_row[1:] = [f"{figure['bytes']:,}", f"{figure['value']:.4f}"]
        for batch_size, length in shapes:
            cells_of_row.append(time_cell(results, name, batch_size, length))
        lines.append(f"| {' | '.join(cells_of_row)} |")
    for entry in results.entries:
        if entry["kind"] == "refused":
            lines.append(f"| {entry['form']} | refused: {entry['line']} |" + " |" * len(shapes))
    return "\n".join(lines)


def time_cell(results: Results, name: str, batch_size: int, length: int) -> str:
    shape = {"kind": "latency", "batch_size": batch_size, "length": length}
    # The newest of each: a shape may have been measured again for all forms.
    own, peer = results.newest(**shape, form=name), results.newest(**shape, form=PEER)
    if own is None or peer is None:
        return ""
    ratio = peer["median_ms"] / own["median_ms"]
    return f"{own['median_ms']:.1f} ({own['p99_ms']:.1f}), x{ratio:.2f}"


if __name__ == "__main__":
    main()
