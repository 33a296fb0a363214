"""The log of a run's updates, with metrics that stay on the device until they are written."""

import logging
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.errors import UserError
from bertjax.number_text import number_text
from bertjax.parallel import hosts
from bertjax.storage import written_whole
from bertjax.training.logs.metrics_log import MetricsLog
from bertjax.training.logs.side_file import SideFile
from bertjax.training.optimization.batch_schedule import SCALE, BatchSchedule
from bertjax.types import Batch

log = logging.getLogger("bertjax")

KEPT_BAD_BATCHES = 20  # a run that diverges for days is not to fill the disk with its batches
BATCH_SIZE = "batch_size"  # in the metrics, and in a checkpoint's `meta`


class DivergedError(UserError):
    """Training cannot go on: loss or gradient were not finite in many updates in a row."""


class Update(NamedTuple):
    """An update that was started; the device may not have finished it."""

    step: int
    """The step after the update."""
    batches: int
    """The number of batches of `train.batch_size` rows that it takes."""
    scalars: Mapping[str, Any]
    """Its metrics, most of them on the device."""
    batch: Batch
    """This process's rows."""


class StepLog:
    """Writes the metrics of updates, several at once, and keeps batches that were not finite.

    Fetching a metric waits for the device, which then is idle until it gets the next update. So
    updates are held until a line of the log is due.
    """

    def __init__(
        self, config: Config, run_dir: epath.Path, metrics: MetricsLog, schedule: BatchSchedule
    ):
        self._config, self._metrics, self._schedule = config, metrics, schedule
        self._bad = run_dir / "nonfinite"
        self._bad_file = SideFile(self._bad)
        self._pending: list[Update] = []
        self._skipped_in_a_row = 0
        # NaN until the first flush, so that no rate includes the compilation of the first step.
        self._clock = math.nan

    def enter(self, config: Config, schedule: BatchSchedule) -> None:
        """Take the next updates for those of a phase with this configuration."""
        self._config, self._schedule = config, schedule
        # Its first step is compiled, which no rate is to include.
        self._clock = math.nan

    def add(self, update: Update) -> None:
        """Hold an update until the next `flush`."""
        self._pending.append(update)

    def restart_clock(self) -> None:
        """Measure the time of the next updates from now on, leaving out an evaluation, say."""
        self._clock = time.perf_counter()

    def flush(self) -> None:
        """Wait for the held updates, write their metrics, and keep the batches that were skipped.

        Raises `DivergedError` after `train.max_nonfinite_steps` skipped updates in a row.
        """
        if not self._pending:
            return
        # One transfer for all: each has its own latency.
        scalars = jax.device_get([update.scalars for update in self._pending])
        entries = [
            self._entry(update, values)
            for update, values in zip(self._pending, scalars, strict=True)
        ]
        last = entries[-1]
        self._schedule.observe(entries)
        if math.isfinite(self._schedule.noise_scale):
            last[SCALE] = self._schedule.noise_scale
        last |= self._rates(sum(entry["tokens"] for entry in entries))
        self._metrics.write(entries)
        log.info("step %d: %s", last["step"], format_metrics(last))
        # After the metrics are on the disk: this may end the run, and they show how it came to
        # that.
        for entry, update in zip(entries, self._pending, strict=True):
            self._check_finite(update.step, bool(entry["skipped"]), update.batch)
        self._pending.clear()
        self.restart_clock()

    def _entry(self, update: Update, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of `metrics.jsonl` for an update."""
        entry: dict[str, Any] = {"step": update.step, "split": "train"}
        for name, value in values.items():
            entry[name] = float(value)
        if self._config.train.batch_size_schedule != "constant":
            entry[BATCH_SIZE] = float(update.batches * self._config.train.batch_size)
        return entry

    def _rates(self, tokens: float) -> dict[str, float]:
        """Return tokens, steps and sequences a second since the clock was restarted."""
        seconds = time.perf_counter() - self._clock
        if math.isnan(seconds):
            return {}
        steps = sum(update.batches for update in self._pending)
        return {
            "tokens_per_second": tokens / seconds,
            "steps_per_second": steps / seconds,
            "sequences_per_second": steps * self._config.train.batch_size / seconds,
        }

    def _check_finite(self, step: int, skipped: bool, batch: Batch) -> None:
        """Save the batch of a skipped update; raise `DivergedError` after many in a row."""
        if not skipped:
            self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        path = self._bad / f"step-{step}{_suffix()}"
        kept = self._bad_file.attempt(partial(self._save_batch, path, batch))
        where = f"batch in {path}" if kept else "batch not kept"
        log.warning("step %d: loss or gradient not finite, update skipped, %s", step, where)
        limit = self._config.train.max_nonfinite_steps
        if self._skipped_in_a_row >= limit:
            raise DivergedError(
                f"step {step}: loss or gradient not finite in {limit} updates in a row, "
                f"expected finite; batches in {self._bad}; "
                "try a lower optimizer.peak_learning_rate or a longer warmup"
            )

    def _save_batch(self, path: epath.Path, batch: Batch) -> None:
        """Write a batch to `nonfinite/`, unless there are `KEPT_BAD_BATCHES` already."""
        self._bad.mkdir(parents=True, exist_ok=True)
        # Counted on the disk, so that restarts of the run count on.
        if len(list(self._bad.glob(f"*{_suffix()}"))) < KEPT_BAD_BATCHES:
            with written_whole(path) as file:
                np.savez(file, **batch)


def _suffix() -> str:
    """Return the end of the names of this process's batches, which have its own rows only."""
    return f"-process-{jax.process_index()}.npz" if hosts.is_multiprocess() else ".npz"


def format_metrics(values: Mapping[str, Any]) -> str:
    """Return the metrics of an entry as one line of the log."""
    return ", ".join(
        f"{name} {number_text(value, '.4g')}"
        for name, value in values.items()
        if isinstance(value, float) and name != "step"
    )
