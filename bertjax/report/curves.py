"""A run's metrics: curves of bounded size, and the figures of its newest evaluation."""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json
from etils import epath

from bertjax.config.distill import TERMS
from bertjax.errors import UserError, one_line
from bertjax.training.logs.metrics_log import FILE, read_entries

MAX_POINTS = 2000  # maximum number of points in a curve; the page is 1,180 pixels wide
PRETRAINING = (
    "mlm_loss",
    "mlm_perplexity",
    "mlm_accuracy",
    "nsp_loss",
    "nsp_accuracy",
    "sop_loss",
    "sop_accuracy",
    "detection_loss",
    "detection_accuracy",
    "detection_precision",
    "detection_recall",
    "unigram_entropy",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "batch_size",
    "gradient_noise_scale",
    "skipped",
)
"""The metrics on a pretraining run's page."""
DISTILLATION = ("loss", *(f"{term}_loss" for term in TERMS), *PRETRAINING)
"""The metrics on the page of a pretraining run with a teacher."""
BLOCK_BYTES = 1 << 23  # number of bytes that are read at a time


class Point(NamedTuple):
    """A metric's value at a step."""

    step: int
    value: float


@dataclass(frozen=True)
class Curve:
    """One metric over n steps, ascending."""

    steps: np.ndarray
    """[n]"""
    values: np.ndarray
    """[n], NaN if the entry of the step has null or no such field."""

    def finite(self) -> "Curve":
        """Return the curve without the steps that have no value."""
        finite = np.isfinite(self.values)
        return Curve(self.steps[finite], self.values[finite])

    def smoothed(self) -> "Curve":
        """Return moving means at up to `MAX_POINTS` of the steps, the first and last among them.

        A mean is over a window of 1/50 of the curve. The window is centred on its step, so that the
        mean does not lag when the loss falls fast. Near the beginning of the curve the window is
        shorter; near the end it is cut off, so it is not centred there.
        """
        size = len(self.values)
        at = np.unique(np.linspace(0, size - 1, min(size, MAX_POINTS)).astype(int))
        # 1/100 of the curve on each side of the step, 1/50 together.
        half = np.minimum(size // 100, at)  # shorter at the beginning, to stay centred
        low, high = at - half, np.minimum(at + half + 1, size)
        # A window's sum is the difference of two cumulative sums: it costs the same for any size.
        finite = np.isfinite(self.values)
        sums = np.concatenate([[0.0], np.cumsum(np.where(finite, self.values, 0.0))])
        counts = np.concatenate([[0], np.cumsum(finite)])
        count = counts[high] - counts[low]
        means = (sums[high] - sums[low]) / np.maximum(count, 1)
        return Curve(self.steps[at], np.where(count > 0, means, np.nan))

    def thinned(self) -> "Curve":
        """Return up to `MAX_POINTS` points: the lowest and the highest of each section.

        So no spike is lost; it could be lost if every n-th point were kept.
        """
        size = len(self.values)
        if size <= MAX_POINTS:
            return self
        kept = [0, size - 1]
        # Half as many sections (`stretch`) as points, because each section gives two.
        edges = np.linspace(0, size, MAX_POINTS // 2).astype(int)
        for begin, end in itertools.pairwise(edges.tolist()):
            stretch = self.values[begin:end]
            finite = np.isfinite(stretch)
            kept.append(begin + int(np.argmin(np.where(finite, stretch, np.inf))))
            kept.append(begin + int(np.argmax(np.where(finite, stretch, -np.inf))))
        # Sorted, and without duplicates: a section's lowest point may also be its highest.
        at = np.unique(kept)
        return Curve(self.steps[at], self.values[at])


@dataclass(frozen=True)
class Metrics:
    """The metrics read from `metrics.jsonl`, and their steps: a float64 array for each name."""

    train: dict[str, np.ndarray]
    """Arrays by name, with one element for each training step."""
    heldout: dict[str, np.ndarray]
    """Arrays by name, with one element for each held-out evaluation."""

    @property
    def last_step(self) -> int:
        """The last training step that was written; 0 if there is none."""
        return _last(self.train["step"])

    @property
    def last_evaluation(self) -> int:
        """Step of the newest held-out evaluation; 0 if there is none."""
        return _last(self.heldout["step"])

    @property
    def skipped(self) -> int:
        """Number of updates that were skipped because loss or gradient was not finite."""
        return int(np.nansum(self.train["skipped"]))

    def training(self, name: str) -> Curve:
        """Return a metric of the training steps."""
        return Curve(self.train["step"], self.train[name])

    def evaluations(self, name: str) -> Curve:
        """Return a metric of the held-out evaluations."""
        return Curve(self.heldout["step"], self.heldout[name])

    def latest(self, name: str) -> float | None:
        """Return a metric of the newest held-out evaluation.

        None if there is no evaluation, or the metric was not finite.
        """
        values = self.heldout[name][-1:]
        return float(values[0]) if np.isfinite(values).any() else None

    def lowest(self, name: str) -> Point | None:
        """Return the latest evaluation with the lowest value; None if there is no value."""
        return self._best(name, np.argmin)

    def highest(self, name: str) -> Point | None:
        """Return the latest evaluation with the highest value; None if there is no value."""
        return self._best(name, np.argmax)

    def _best(self, name: str, choose: Callable[[np.ndarray], np.intp]) -> Point | None:
        curve = self.evaluations(name).finite()
        if not len(curve.steps):
            return None
        # Of equal values the latest, whose checkpoint is the one that is kept.
        at = len(curve.values) - 1 - int(choose(curve.values[::-1]))
        return Point(int(curve.steps[at]), float(curve.values[at]))


def _last(steps: np.ndarray) -> int:
    return int(steps[-1]) if len(steps) else 0


def heldout_names(run_dir: epath.Path) -> tuple[str, ...]:
    """Return the names of a run's held-out metrics, in the order of their first entry."""
    names: dict[str, None] = {}
    for entry in read_entries(run_dir):
        if entry["split"] == "validation":
            names |= dict.fromkeys(entry)
    return tuple(name for name in names if name not in ("step", "split"))


def read_metrics(run_dir: epath.Path, names: Sequence[str] = PRETRAINING) -> Metrics:
    """Return the metrics `names` of a run.

    The file is read in blocks: a million entries (300 MB) take 3 s on one core and 400 MB of
    memory. If the last line is not complete yet, it is left out.
    """
    names = ("step", *names)
    # Steps are float64 too: it holds every integer up to 2**53 exactly.
    schema = pa.schema([("split", pa.string()), *((name, pa.float64()) for name in names)])
    table = pa.concat_tables([schema.empty_table(), *_blocks(run_dir / FILE, schema)])
    split = table["split"].to_numpy()
    columns = {name: table[name].to_numpy() for name in names}  # null becomes NaN
    return Metrics(
        train={name: column[split == "train"] for name, column in columns.items()},
        heldout={name: column[split == "validation"] for name, column in columns.items()},
    )


def _blocks(path: epath.Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the file's complete lines as tables, each from about `BLOCK_BYTES` of the file."""
    if not path.exists():
        return
    # The types are given, since a column may be null or absent in a whole block.
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    with path.open("rb") as file:
        rest = b""
        while block := file.read(BLOCK_BYTES):
            # A block may end inside a line, and a run may still be writing the last line.
            lines, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                try:
                    yield pa.json.read_json(io.BytesIO(lines), parse_options=options)
                # Arrow names no line. Reading it line by line does, where it is no run's.
                except pa.ArrowInvalid as error:
                    read_entries(path.parent)
                    raise UserError(
                        f"{path}: cannot be read as a run's metrics ({one_line(error)})"
                    ) from error
