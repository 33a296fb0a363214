"""The card of a table of word vectors: its figure, bytes and latency beside the teacher's."""

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from bertjax.compression.card import Card, Variant, license_of
from bertjax.compression.figures import Figure, PairMeasure
from bertjax.compression.gate import check_loss
from bertjax.compression.held_out import sts_measure
from bertjax.compression.latency import Latency, Timed, measure_latency
from bertjax.compression.runtimes.process import available_threads, opened
from bertjax.inference.embed import EmbedOptions, Pooling, embed_windows
from bertjax.inference.static_table import WEIGHTS, read_static_table
from bertjax.interop.programs.serving import ServedModel, served_model
from bertjax.interop.programs.stablehlo import export_stablehlo
from bertjax.training.saved_model import TrainedModel

TEACHER, TABLE = "teacher", "table"


def measured_card(
    model: TrainedModel,
    source: epath.Path,
    folder: epath.Path,
    *,
    pooling: Pooling,
    sts: str,
    max_loss: float | None,
    seconds: float,
    license: str,
    settings: Mapping[str, Any],
) -> Card:
    """Return the card of the table in `folder`, which was made of `model`, that of `source`.

    The figure is the Spearman correlation on the rated pairs of the file `sts`: of the teacher in
    JAX, of the table as it is read from the folder. Latency is that of rows of ids, measured for
    about `seconds` each; 0: it is not. Raises `BoundError` if the table loses more than the share
    `max_loss`.
    """
    measure = sts_measure(model.checkpoint, sts)
    texts = list(measure.texts)
    table = read_static_table(folder)
    name = f"table of {table.width} numbers"
    after_figure = measure.figure_of_vectors(table.text_vectors(*table.encode(texts)))
    before_figure = _teachers_figure(model, measure, pooling)
    if max_loss is not None:
        check_loss(name, before_figure, after_figure, max_loss)
    served = served_model(model.config.model, model.params, ["hidden"])
    latency: dict[str, tuple[Latency, ...]] = {TEACHER: (), TABLE: ()}
    if seconds:
        latency = _latencies(served, folder, model.tokenizer.vocab_size, seconds)
    size = sum(array.nbytes for array in served.params.values())
    runtime = f"jax {jax.__version__}"
    before = Variant(TEACHER, runtime, size, before_figure, latency[TEACHER])
    size = (folder / WEIGHTS).stat().length
    after = Variant(name, f"numpy {np.__version__}", size, after_figure, latency[TABLE])
    words = [f"--{key.replace('_', '-')} {value}" for key, value in settings.items()]
    data = [f"measured on {measure.source}"]
    if settings.get("corpus"):
        data.append(f"pieces counted in {settings['corpus']}")
    return Card(
        title="Table of word vectors",
        command=f"bertjax distill --static {source} --to FOLDER {' '.join(words)}",
        source=str(source),
        settings=settings,
        data=data,
        before=before,
        after=after,
        max_loss=max_loss,
        license=license or license_of(source),
        threads=available_threads(),
        tags=("sentence-transformers", "model2vec", "static-embeddings"),
        notes=(
            "The vector of a text is the mean of the vectors of its pieces, with length 1.",
            "Latency is that of rows of ids: texts become ids by the same tokenizer.",
        ),
    )


def _teachers_figure(model: TrainedModel, measure: PairMeasure, pooling: Pooling) -> Figure:
    """Return the figure of the teacher's own sentence vectors."""
    # What `import` left of its folder was said when the table was made.
    silent = dataclasses.replace(model, not_taken=())
    options = EmbedOptions(pooling=pooling)
    parts = [part.vectors for part in embed_windows(silent, list(measure.texts), options)]
    return measure.figure_of_vectors(np.concatenate(parts))


def _latencies(
    served: ServedModel, folder: epath.Path, vocab_size: int, seconds: float
) -> dict[str, tuple[Latency, ...]]:
    """Return the latency of the teacher as a StableHLO program, and of the table."""
    with tempfile.TemporaryDirectory() as place:
        program = epath.Path(place) / "program"
        export_stablehlo(served, program)
        with opened(program, "stablehlo") as teacher, opened(folder, "static") as table:
            models = {TEACHER: Timed(teacher, ["hidden"]), TABLE: Timed(table, ["vectors"])}
            return measure_latency(models, vocab_size, served.config.max_length, seconds=seconds)
