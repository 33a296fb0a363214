"""A run's metrics as curves of bounded size and a few final figures."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from bertjax.train.metrics import FILE

MOST_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """One metric over steps, at most about `MOST_POINTS` points."""

    steps: np.ndarray
    values: np.ndarray

    def smoothed(self) -> "Curve":
        """An exponential average over a fiftieth of the curve, corrected for its start."""
        keep = 1 - 1 / max(len(self.values) / 50, 1)
        weight = total = 0.0
        out = []
        for value in np.nan_to_num(self.values, nan=float(np.nanmean(self.values)) if len(self.values) else 0.0):
            total, weight = keep * total + value, keep * weight + 1
            out.append(total / weight)
        return Curve(self.steps, np.array(out))


@dataclass(frozen=True)
class Metrics:
    """What the report shows of `metrics.jsonl`."""

    train: list[dict[str, Any]]
    rated: list[dict[str, Any]]
    heldout: list[dict[str, Any]]
    last_step: int
    skipped: int

    def curve(self, split: str, name: str) -> Curve:
        """The metric's values where it is there; null stands as NaN."""
        rows = [row for row in getattr(self, split) if name in row]
        values = [np.nan if row[name] is None else row[name] for row in rows]
        return Curve(np.array([row["step"] for row in rows]), np.array(values, float))

    def best(self) -> dict[str, Any] | None:
        """The evaluation with the lowest held-out masked-word loss."""
        rows = [row for row in self.heldout if row["mlm_loss"] is not None]
        return min(rows, key=lambda row: row["mlm_loss"], default=None)


def read_metrics(run_dir: epath.Path) -> Metrics:
    """Read a run's rows, thinned so that a million steps cost no more to show than two thousand.

    A last line that is not whole yet is left out.
    """
    path = run_dir / FILE
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    heldout = [json.loads(line) for line in lines if '"validation"' in line]
    steps = [line for line in lines if '"train"' in line]
    train, rated = ([json.loads(line) for line in _thinned(of)] for of in (steps, _rated(steps)))
    skipped = sum('"skipped": 1.0' in line for line in steps)
    return Metrics(train, rated, heldout, train[-1]["step"] if train else 0, skipped)


def _rated(lines: list[str]) -> list[str]:
    """The rows that close a logging interval: throughput stands on them alone."""
    return [line for line in lines if "_per_second" in line]


def _thinned(lines: list[str]) -> list[str]:
    """At most `MOST_POINTS` of the lines, evenly, the newest among them."""
    return lines[:: -max(1, -(-len(lines) // MOST_POINTS))][::-1]
