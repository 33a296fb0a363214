"""Metrics of a run on the disk (`metrics.jsonl`, TensorBoard), and detection of overfitting."""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etils import epath

from bertjax.number_text import unsigned_zero
from bertjax.storage import write_whole

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"


def read_entries(run_dir: epath.Path) -> list[dict[str, Any]]:
    """Return the entries of a run's `metrics.jsonl`, without a last line that a kill cut short."""
    path = run_dir / FILE
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last line's end is not complete
    return [json.loads(line) for line in lines]


class MetricsLog:
    """Appends entries to `metrics.jsonl`, each step once, and copies them to TensorBoard.

    A run that resumes at `step` drops the entries of later steps, because these steps run again.
    All processes of a run but one use `writes=False`; then nothing is read or written.
    """

    def __init__(self, run_dir: epath.Path, step: int, *, writes: bool = True):
        self._path = run_dir / FILE
        self.heldout: list[tuple[float, float]] = []
        """(held-out loss, mean training loss since the evaluation before) of each evaluation."""
        self.scores: list[float] = []
        """The `score` of each evaluation that has one."""
        self._train_losses: list[float] = []  # since the last evaluation
        self._step, self._writes = step, writes
        if not writes:
            return
        kept = [entry for entry in read_entries(run_dir) if entry["step"] <= step]
        # Whole, under another name first: a kill here must not lose the lines of earlier steps.
        write_whole(self._path, _to_lines(kept).encode())
        for entry in kept:
            self._remember(entry)

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries, each with `step` and `split`; they are on the disk when this returns."""
        if not self._writes:
            return
        entries = [_json_entry(entry) for entry in entries]
        with self._path.open("a") as file:
            file.write(_to_lines(entries))
            file.flush()
            # A checkpoint of the same step is saved after this. Without the sync, the checkpoint
            # could survive a crash of the machine while the entries before it are lost.
            os.fsync(file.fileno())
        for entry in entries:
            self._remember(entry)
            self._copy_to_board(entry)

    def _copy_to_board(self, entry: Mapping[str, Any]) -> None:
        for name, value in entry.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{entry['split']}/{name}", value, entry["step"])

    @cached_property
    def _board(self) -> "SummaryWriter":
        """The writer of TensorBoard events, opened by the first entry.

        Its import brings torch along where that is installed, which takes long. By the first entry
        the device has the next steps to work on.
        """
        import tensorboardX

        # A resumed run writes steps again that were written before: TensorBoard hides the old ones.
        return tensorboardX.SummaryWriter(
            str(self._path.parent / "tensorboard"), purge_step=self._step + 1
        )

    def overfitting(self, evaluations: int) -> bool:
        """Return True where the last `evaluations` evaluations all show overfitting.

        At each, held-out loss was higher and training loss lower than at the one before.
        """
        recent = self.heldout[-evaluations - 1 :]
        pairs = list(itertools.pairwise(recent))
        if len(pairs) < evaluations:
            return False
        return all(after[0] > before[0] and after[1] < before[1] for before, after in pairs)

    def stalled(self, patience: int) -> bool:
        """Return True where none of the last `patience` scores is above the best one before."""
        before, recent = self.scores[:-patience], self.scores[-patience:]
        return bool(before) and max(recent) <= max(before)

    def close(self) -> None:
        """Flush and close the TensorBoard writer."""
        if "_board" in vars(self):  # only if it was opened
            self._board.close()

    def _remember(self, entry: Mapping[str, Any]) -> None:
        """Keep of an entry what `overfitting` and `stalled` look at."""
        # Of pretraining the loss of masked words counts; fine-tuning has `loss` alone.
        loss = entry.get("mlm_loss", entry.get("loss"))
        if entry.get("score") is not None:
            self.scores.append(entry["score"])
        if entry["split"] == "train":
            if loss is not None:
                self._train_losses.append(loss)
        elif loss is not None and self._train_losses:
            self.heldout.append((loss, math.fsum(self._train_losses) / len(self._train_losses)))
            self._train_losses = []


def _to_lines(entries: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def _json_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with null for NaN and infinity, which are no JSON, and 0.0 for -0.0."""
    values = dict(entry)
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = unsigned_zero(value) if math.isfinite(value) else None
    return values
