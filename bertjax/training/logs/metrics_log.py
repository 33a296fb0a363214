"""What a run remembers of its steps: `metrics.jsonl`, TensorBoard events, and the watch for
overfitting.
"""

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etils import epath

from bertjax.storage import write_whole

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"


def read_rows(run_dir: epath.Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; a last line that a kill cut short is left out."""
    path = run_dir / FILE
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


class MetricsLog:
    """Appends rows to `metrics.jsonl`, each step once, and copies them to TensorBoard.

    A run that resumes at `step` forgets what was written after it: those steps are run again.
    Without `writes`, on all processes of a run but one, nothing is read or written.
    """

    def __init__(self, run_dir: epath.Path, step: int, *, writes: bool = True):
        self._path = run_dir / FILE
        self.heldout: list[tuple[float, float]] = []
        """(held-out loss, mean training loss since the evaluation before) of each evaluation."""
        self.scores: list[float] = []
        """The `score` of each evaluation that has one."""
        self._train_losses: list[float] = []
        self._step, self._writes = step, writes
        if not writes:
            return
        kept = [row for row in read_rows(run_dir) if row["step"] <= step]
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        for row in kept:
            self._watch(row)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows (each with `step` and `split`) and have them on the disk when this returns."""
        if not self._writes:
            return
        rows = [{k: _finite(v) for k, v in row.items()} for row in rows]
        with self._path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            self._watch(row)
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])

    @cached_property
    def _board(self) -> "SummaryWriter":
        """Made by the first row: until then its import, which brings torch along where that is
        installed, can wait.
        """
        import tensorboardX

        return tensorboardX.SummaryWriter(
            str(self._path.parent / "tensorboard"), purge_step=self._step + 1
        )

    def overfitting(self, evaluations: int) -> bool:
        """Whether held-out loss rose and training loss fell at each of the last `evaluations`
        evaluations.
        """
        recent = self.heldout[-evaluations - 1 :]
        pairs = list(itertools.pairwise(recent))
        return len(pairs) == evaluations and all(b[0] > a[0] and b[1] < a[1] for a, b in pairs)

    def stalled(self, patience: int) -> bool:
        """Whether none of the last `patience` evaluations scored better than the best one before
        them.
        """
        before, recent = self.scores[:-patience], self.scores[-patience:]
        return bool(before) and max(recent) <= max(before)

    def close(self) -> None:
        """Flush and close the TensorBoard writer."""
        if "_board" in vars(self):
            self._board.close()

    def _watch(self, row: Mapping[str, Any]) -> None:
        loss = row.get("mlm_loss", row.get("loss"))
        if row.get("score") is not None:
            self.scores.append(row["score"])
        if row["split"] == "train":
            if loss is not None:
                self._train_losses.append(loss)
        elif loss is not None and self._train_losses:
            self.heldout.append((loss, math.fsum(self._train_losses) / len(self._train_losses)))
            self._train_losses = []


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: null stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
