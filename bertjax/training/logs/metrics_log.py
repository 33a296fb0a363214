"""Metrics of a run on the disk (`metrics.jsonl`, TensorBoard), and detection of overfitting."""

import itertools
import json
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from bertjax.errors import check, mismatch, one_line
from bertjax.given_files import read_file
from bertjax.json_values import shown, value_of
from bertjax.number_text import unsigned_zero
from bertjax.training.logs.board import Board
from bertjax.training.logs.side_file import AppendedFile, to_lines

log = logging.getLogger("bertjax")

FILE = "metrics.jsonl"
_ENTRY = "an object with step, split and numbers"


def read_entries(run_dir: epath.Path) -> list[dict[str, Any]]:
    """Return the entries of a run's `metrics.jsonl`, without a last line that a kill cut short.

    Raises `UserError` if the file cannot be read.
    """
    path = run_dir / FILE
    if not path.exists():
        return []
    content = read_file(path, "a run's metrics")
    lines = content.split(b"\n")[:-1]  # what follows the last line's end is not complete
    return [_entry(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def _entry(line: bytes, where: str) -> dict[str, Any]:
    """Return the entry on a line; `UserError` where it is none that a run writes."""
    try:
        entry = json.loads(line.decode())
    # Thousands of lists in lists exhaust the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise mismatch(where=where, found=one_line(error, 100), expected=_ENTRY) from error
    is_entry = isinstance(entry, dict) and {"step", "split"} <= entry.keys()
    check(is_entry, where=where, found=shown(entry), expected=_ENTRY)
    step = value_of(int, entry["step"], f"{where}: step")
    check(step >= 0, where=f"{where}: step", found=step, expected="0 or more")
    value_of(str, entry["split"], f"{where}: split")
    for name, value in entry.items():
        # Any float: one that is not finite is null now, and was NaN in earlier versions.
        if name not in ("step", "split") and not isinstance(value, float):
            value_of(float | None, value, f"{where}: {name}")
    return entry


class MetricsLog:
    """Appends entries to `metrics.jsonl`, each step once, and copies them to TensorBoard.

    A run that resumes at `step` drops the entries of later steps, because these steps run again.
    What cannot be written is kept in memory, for the decisions that depend on it and until it can
    be written. All processes of a run but one use `writes=False`; then nothing is read or written.
    """

    def __init__(self, run_dir: epath.Path, step: int, *, writes: bool = True):
        self.evaluations: list[dict[str, Any]] = []
        """The entries of held-out evaluations."""
        self.heldout: list[tuple[float, float]] = []
        """(held-out loss, mean training loss since the evaluation before) of each evaluation."""
        self._train_losses: list[float] = []  # since the last evaluation
        self._writes = writes
        if not writes:
            return
        kept = [entry for entry in read_entries(run_dir) if entry["step"] <= step]
        _warn_of_gap(run_dir / FILE, kept, step)
        # Whole, under another name first: a kill here must not lose the lines of earlier steps.
        content = b"".join(entry_lines(kept))
        # A checkpoint of the same step is saved after the entries. Were they not synced, it could
        # survive a crash of the machine while the entries are lost.
        self._file = AppendedFile(run_dir / FILE, content, synced=True)
        self._board = Board(run_dir, step)
        for entry in kept:
            self._remember(entry)

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries, each with `step` and `split`.

        They are on the disk when this returns, or it is said that they cannot be written.
        """
        if not self._writes:
            return
        entries = [_json_entry(entry) for entry in entries]
        for entry in entries:
            self._remember(entry)
        self._file.append(entry_lines(entries))
        self._board.add(entries)

    def overfitting(self, evaluations: int, since: int = 0) -> bool:
        """Return True where the last `evaluations` evaluations all show overfitting.

        At each, held-out loss was higher and training loss lower than at the one before. Those up
        to step `since` do not count.
        """
        own = sum(entry["step"] > since for entry in self.evaluations)
        first = len(self.heldout) - min(own, evaluations + 1)
        recent = self.heldout[max(first, 0) :]
        pairs = list(itertools.pairwise(recent))
        if len(pairs) < evaluations:
            return False
        return all(after[0] > before[0] and after[1] < before[1] for before, after in pairs)

    def stalled(self, patience: int, since: int = 0) -> bool:
        """Return True where none of the last `patience` scores is above the best one before.

        Scores of steps before `since` do not count.
        """
        counted = [entry for entry in self.evaluations if entry["step"] >= since]
        scores = [entry["score"] for entry in counted if entry.get("score") is not None]
        before, recent = scores[:-patience], scores[-patience:]
        return bool(before) and max(recent) <= max(before)

    def close(self) -> None:
        """Write what waits to be written, as far as the disk takes it."""
        if self._writes:
            self._file.append([])
            self._board.close()

    def _remember(self, entry: Mapping[str, Any]) -> None:
        """Keep of an entry what decisions look at."""
        if entry["split"] == "validation":
            self.evaluations.append(dict(entry))
        # Of pretraining the loss of masked words counts; fine-tuning has `loss` alone.
        loss = entry.get("mlm_loss", entry.get("loss"))
        if entry["split"] == "train":
            if loss is not None:
                self._train_losses.append(loss)
        elif loss is not None and self._train_losses:
            self.heldout.append((loss, math.fsum(self._train_losses) / len(self._train_losses)))
            self._train_losses = []


def _warn_of_gap(path: epath.Path, kept: list[dict[str, Any]], step: int) -> None:
    """Say it where the last entries before `step`, at which a run resumes, are missing."""
    last = max((entry["step"] for entry in kept if entry["split"] == "train"), default=0)
    if last < step:
        log.warning(
            "%s: no entries from step %d to %d, which an earlier start did not write",
            path,
            last + 1,
            step,
        )


def entry_lines(entries: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Return the lines of `metrics.jsonl` for these entries."""
    return to_lines(json.dumps(entry) for entry in entries)


def _json_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with null for NaN and infinity, which are no JSON, and 0.0 for -0.0."""
    values = dict(entry)
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = unsigned_zero(value) if math.isfinite(value) else None
    return values
