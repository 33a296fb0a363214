"""The time of a run with a wall-clock budget: what has passed of it at each update, and its record.

A fraction is decided once, by the clock of the first process, when an update begins. It is written
to `budget.jsonl` beside the metrics and into checkpoints, and an update that is made again has the
fraction that it had.
"""

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic as clock
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.config.optimization.budget import budget_seconds
from bertjax.errors import check, mismatch, one_line
from bertjax.given_files import read_file
from bertjax.json_values import record, shown
from bertjax.parallel import hosts
from bertjax.training.logs.side_file import AppendedFile, to_lines

log = logging.getLogger("bertjax")

FILE = "budget.jsonl"
BUDGET = "budget"
"""Field of a checkpoint's `meta` with the record of its run's budget."""
_LINE = "step and seconds from 0, and passed, fractions from 0 to 1"
AHEAD = 1
"""Number of updates that may be unfinished when the time of the next one is read.

One keeps the devices busy. With more, fractions would be those of a time long before the update.
"""


class Record(NamedTuple):
    """What is known of the time of a run."""

    passed: tuple[float, ...]
    """The fraction with which the update after each step began, from step 0 on, 0 to 1: numbers of
    float32.
    """
    seconds: float
    """The time for which processes have trained the run, as far as it was recorded."""


NEW = Record((), 0.0)


def to_meta(record: Record) -> dict[str, Any]:
    """Return a record for a checkpoint's `meta`; a million steps are 5.3 MB."""
    numbers = np.asarray(record.passed, "<f4").tobytes()
    return {"seconds": record.seconds, "passed": base64.b64encode(numbers).decode()}


def from_meta(meta: Mapping[str, Any]) -> Record:
    """Return the record in a checkpoint's `meta`; `NEW` where it has none."""
    saved = meta.get(BUDGET)
    if saved is None:
        return NEW
    numbers = np.frombuffer(base64.b64decode(saved["passed"]), "<f4")
    return Record(tuple(numbers.tolist()), saved["seconds"])


def recorded(run_dir: epath.Path, meta: Mapping[str, Any]) -> Record:
    """Return what a run's folder has of its time; `meta` is that of the checkpoint to go on from.

    `budget.jsonl` may go beyond the checkpoint. Raises `UserError` for a line that no run writes.
    """
    passed, seconds = from_meta(meta)
    for line in _lines(run_dir / FILE):
        seconds = max(seconds, line.seconds)
        # What was decided for a step is written once; a line may begin before the checkpoint.
        if line.step <= len(passed) < line.step + len(line.passed):
            passed += line.passed[len(passed) - line.step :]
    return Record(passed, seconds)


@dataclass(frozen=True)
class _Line:
    """A line of `budget.jsonl`."""

    step: int
    """The step of the first fraction."""
    passed: tuple[float, ...]
    seconds: float


def _lines(path: epath.Path) -> list[_Line]:
    """Return the whole lines of the file."""
    if not path.exists():
        return []
    content = read_file(path, "a run's budget")
    lines = []
    # A kill may cut the last one.
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        where = f"{path}: line {number}"
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise mismatch(where=where, found=one_line(error, 100), expected=_LINE) from error
        line = record(_Line, values, where)
        in_range = min(line.step, line.seconds) >= 0 and all(0 <= x <= 1 for x in line.passed)
        check(in_range, where=where, found=shown(values), expected=_LINE)
        lines.append(line)
    return lines


class Budget:
    """The budget of a run while it trains.

    The time counts for which processes run, from the call of `train` on: reading data, compilation,
    evaluations, checkpoints, and steps that are made again after a kill. All processes make the
    same calls in the same order; the first one has the clock.
    """

    def __init__(self, config: Config, run_dir: epath.Path, meta: Mapping[str, Any], began: float):
        """Go on from what the folder has; `meta` is that of the checkpoint at which the run begins.

        `began` is the `time.monotonic()` from which the time of this process counts.
        """
        self._total = budget_seconds(config.train.budget)
        self._began = began
        self._says = hosts.FirstSays("budget")
        self._running: list[jax.Array] = []
        self._known = from_meta(meta)
        self._writes = hosts.is_first()
        if self._writes:
            self._known = recorded(run_dir, meta)
            self._file = AppendedFile(run_dir / FILE, _whole(run_dir / FILE), synced=True)
        self._before = self._known.seconds
        self._passed = list(from_meta(meta).passed)
        self._seconds = self._before
        self._written = len(self._known.passed)

    @property
    def is_used(self) -> bool:
        """True if the update that was last decided on began when all time had passed.

        It is the last one of the run.
        """
        return bool(self._passed) and self._passed[-1] >= 1

    def next(self) -> np.float32:
        """Return the fraction for the next update, float32, and take it as decided.

        It waits until all updates but `AHEAD` of those before are finished.
        """
        while len(self._running) > AHEAD:
            jax.block_until_ready(self._running.pop(0))
        step, heard = len(self._passed), self._says.count - AHEAD
        seconds = self._elapsed()
        own = {"passed": self._decided(step, seconds), "seconds": seconds}
        said = json.loads(self._says(json.dumps(own), heard))
        self._passed.append(said["passed"])
        self._seconds = said["seconds"]
        return np.float32(said["passed"])

    def started(self, scalar: jax.Array) -> None:
        """Note that the update was started; `scalar` is one of its metrics."""
        self._running.append(scalar)

    def write(self) -> None:
        """Append what was decided since the last call to `budget.jsonl`."""
        if not self._writes:
            return
        # Also without a new fraction: the time in which steps are made again counts too.
        line = {
            "step": self._written,
            "passed": self._passed[self._written :],
            "seconds": self._elapsed(),
        }
        self._file.append(to_lines([json.dumps(line)]))
        self._written = max(self._written, len(self._passed))

    def meta(self) -> dict[str, Any]:
        """Return the record of the updates so far, for the `meta` of a checkpoint."""
        return to_meta(Record(tuple(self._passed), self._seconds))

    def close(self, step: int) -> None:
        """Write the last line, and log how the run stands at its end."""
        self.write()
        if self.is_used:
            log.info("step %d: the budget of %.0f s is used", step, self._total)

    def _elapsed(self) -> float:
        return self._before + clock() - self._began

    def _decided(self, step: int, seconds: float) -> float:
        """Return the fraction for the update after `step`: that of the record, or of the time."""
        if step < len(self._known.passed):
            return self._known.passed[step]
        return float(np.float32(min(seconds / self._total, 1.0)))


def place_of(passed: float | np.float32, steps: int) -> np.float32:
    """Return the place in schedules of `steps` steps at which an update is.

    It is computed here, once: in a program a product may be rounded together with what follows it.
    """
    return np.float32(passed) * np.float32(steps)


def passed_at(record: Record, step: int, where: str) -> float:
    """Return the fraction with which the update after `step` began; `UserError` without one."""
    check(
        step < len(record.passed),
        where=f"{where}: step {step + 1}",
        found="no record of the time that had passed",
        expected=f"at most {len(record.passed)}: with train.budget the rates follow a clock",
    )
    return record.passed[step]


def _whole(path: epath.Path) -> bytes | None:
    """Return the whole lines of a file whose last line was cut; None if none was."""
    if not path.exists():
        return None
    content = read_file(path, "a run's budget")
    return None if content.endswith(b"\n") or not content else content[: content.rfind(b"\n") + 1]
