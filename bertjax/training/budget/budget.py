"""The budget of a run while it trains: what has passed of it, by the clock of the first process."""

import json
import logging
from collections.abc import Mapping
from time import monotonic as clock
from typing import Any

import jax
import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.config.optimization.budget import budget_seconds
from bertjax.parallel import hosts
from bertjax.training.budget.record import (
    FILE,
    Record,
    from_meta,
    recorded,
    to_meta,
    whole_lines,
)
from bertjax.training.logs.side_file import AppendedFile, to_lines

log = logging.getLogger("bertjax")

AHEAD = 1
"""Number of updates that may be unfinished when the time of the next one is read.

One keeps the devices busy. With more, fractions would be those of a time long before the update.
"""


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
        self._says = hosts.FirstSays()
        self._running: list[jax.Array] = []
        self._known = from_meta(meta)
        self._writes = hosts.is_first()
        if self._writes:
            self._known = recorded(run_dir, meta)
            self._file = AppendedFile(run_dir / FILE, whole_lines(run_dir / FILE), synced=True)
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
