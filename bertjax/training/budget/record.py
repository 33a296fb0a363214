"""The record of a run's time: the fraction of its budget that had passed at each update.

It is in the `meta` of checkpoints, and in `budget.jsonl` beside the metrics. An update that is made
again has the fraction that it had.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from bertjax.errors import check, mismatch, one_line
from bertjax.given_files import read_file
from bertjax.json_values import record, shown

FILE = "budget.jsonl"
BUDGET = "budget"
"""Field of a checkpoint's `meta` with the record of its run's budget."""
_LINE = "step and seconds from 0, and passed, fractions from 0 to 1"


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


def whole_lines(path: epath.Path) -> bytes | None:
    """Return the whole lines of a file whose last line was cut; None if none was."""
    if not path.exists():
        return None
    content = read_file(path, "a run's budget")
    return None if content.endswith(b"\n") or not content else content[: content.rfind(b"\n") + 1]
