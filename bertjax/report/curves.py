"""A run's metrics as curves of bounded size and a few final figures."""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.json
from etils import epath

from bertjax.training.logs.metrics_log import FILE, read_rows

MAX_POINTS = 2000
PRETRAINING = (
    "mlm_loss",
    "mlm_perplexity",
    "mlm_accuracy",
    "nsp_loss",
    "nsp_accuracy",
    "sop_loss",
    "sop_accuracy",
    "unigram_entropy",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "batch_size",
    "gradient_noise_scale",
    "skipped",
)
"""The columns of a pretraining run's page."""
BLOCK = 1 << 23  # bytes read at a time


@dataclass(frozen=True)
class Curve:
    """One metric over n steps, ascending: `steps` [n], `values` [n], NaN where the row has null or
    nothing.
    """

    steps: np.ndarray
    values: np.ndarray

    def known(self) -> "Curve":
        """Without the steps that have no value."""
        there = np.isfinite(self.values)
        return Curve(self.steps[there], self.values[there])

    def smoothed(self) -> "Curve":
        """Means over a fiftieth of the curve around at most `MOST_POINTS` of its steps, the first
        and last among them.

        Centred, so that it does not lag where the loss falls fast; only at the end does the window
        lie behind.
        """
        size = len(self.values)
        at = np.unique(np.linspace(0, size - 1, min(size, MAX_POINTS)).astype(int))
        half = np.minimum(size // 100, at)
        low, high = at - half, np.minimum(at + half + 1, size)
        there = np.isfinite(self.values)
        total = np.concatenate([[0.0], np.cumsum(np.where(there, self.values, 0.0))])
        count = np.concatenate([[0], np.cumsum(there)])
        found = count[high] - count[low]
        means = (total[high] - total[low]) / np.maximum(found, 1)
        return Curve(self.steps[at], np.where(found > 0, means, np.nan))

    def thinned(self) -> "Curve":
        """At most `MOST_POINTS` points: the lowest and the highest of each stretch, so that no
        spike is lost.
        """
        size = len(self.values)
        if size <= MAX_POINTS:
            return self
        kept = [0, size - 1]
        edges = np.linspace(0, size, MAX_POINTS // 2).astype(int)
        for begin, end in itertools.pairwise(edges.tolist()):
            stretch, there = self.values[begin:end], np.isfinite(self.values[begin:end])
            kept.append(begin + int(np.argmin(np.where(there, stretch, np.inf))))
            kept.append(begin + int(np.argmax(np.where(there, stretch, -np.inf))))
        at = np.unique(kept)
        return Curve(self.steps[at], self.values[at])


@dataclass(frozen=True)
class Metrics:
    """What the report shows of `metrics.jsonl`: a column [rows] of float64 for each name read, by
    split.
    """

    train: dict[str, np.ndarray]
    heldout: dict[str, np.ndarray]

    @property
    def last_step(self) -> int:
        """The newest training step written; 0 before the first."""
        steps = self.train["step"]
        return int(steps[-1]) if len(steps) else 0

    @property
    def last_evaluation(self) -> int:
        """The step of the newest held-out evaluation; 0 before the first."""
        steps = self.heldout["step"]
        return int(steps[-1]) if len(steps) else 0

    @property
    def skipped(self) -> int:
        """Updates skipped because the loss or gradient was not finite."""
        return int(np.nansum(self.train["skipped"]))

    def training(self, name: str) -> Curve:
        """A metric of the training steps."""
        return Curve(self.train["step"], self.train[name])

    def evaluations(self, name: str) -> Curve:
        """A metric of the held-out evaluations."""
        return Curve(self.heldout["step"], self.heldout[name])

    def latest(self, name: str) -> float | None:
        """A metric of the newest held-out evaluation; None when there is none, or it was not
        finite.
        """
        values = self.heldout[name][-1:]
        return float(values[0]) if np.isfinite(values).any() else None

    def lowest(self, name: str) -> tuple[int, float] | None:
        """Step and value of the first evaluation where a metric is lowest; None where it has no
        value.
        """
        return self._at(name, np.argmin)

    def highest(self, name: str) -> tuple[int, float] | None:
        """The same where it is highest."""
        return self._at(name, np.argmax)

    def _at(self, name: str, choose: Callable[[np.ndarray], np.intp]) -> tuple[int, float] | None:
        known = self.evaluations(name).known()
        if not len(known.steps):
            return None
        at = int(choose(known.values))
        return int(known.steps[at]), float(known.values[at])


def heldout_names(run_dir: epath.Path) -> tuple[str, ...]:
    """The names of the figures in a run's held-out rows, in the order of the rows."""
    rows = [row for row in read_rows(run_dir) if row["split"] == "validation"]
    return tuple(
        dict.fromkeys(name for row in rows for name in row if name not in ("step", "split"))
    )


def read_metrics(run_dir: epath.Path, names: Sequence[str] = PRETRAINING) -> Metrics:
    """Read `names` of a run's rows, a block at a time: a million (300 MB) take 3 s of one core and
    400 MB.

    A last line that is not whole yet is left out.
    """
    names = ("step", *names)
    schema = pa.schema([("split", pa.string()), *((name, pa.float64()) for name in names)])
    rows = pa.concat_tables([schema.empty_table(), *_blocks(run_dir / FILE, schema)])
    split = rows["split"].to_numpy()
    columns = {name: rows[name].to_numpy() for name in names}  # null becomes NaN
    train, heldout = (
        {name: of[split == kind] for name, of in columns.items()}
        for kind in ("train", "validation")
    )
    return Metrics(train, heldout)


def _blocks(path: epath.Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The file's whole lines as tables, about `BLOCK` bytes of it each."""
    if not path.exists():
        return
    # Types are given, since a column may be null or absent throughout.
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    with path.open("rb") as file:
        rest = b""
        while block := file.read(BLOCK):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                yield pa.json.read_json(io.BytesIO(whole), parse_options=options)
