"""What a run says of its updates: metrics held on the device until they are wanted, then written
and looked at.
"""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.errors import UserError
from bertjax.parallel import hosts
from bertjax.training.logs.metrics_log import MetricsLog
from bertjax.training.optimization.batch_schedule import SCALE, BatchSize
from bertjax.types import Batch

log = logging.getLogger(__name__)

KEPT_BAD_BATCHES = 20
BATCH_SIZE = "batch_size"  # in the metrics, and in a checkpoint's `meta`


class DivergedError(UserError):
    """Training cannot go on: loss or gradient were not finite time after time."""


class Update(NamedTuple):
    """What is known of an update before the device has done it."""

    step: int
    """The step that it ends at."""
    taken: int
    """Batches of the feed that it is made of."""
    scalars: dict[str, jax.Array]
    """Its metrics, on the device."""
    batch: Batch


class Ledger:
    """Holds each step's metrics on the device until they are wanted, then writes them and looks at
    them.
    """

    def __init__(self, config: Config, run_dir: epath.Path, metrics: MetricsLog, sizes: BatchSize):
        self._config, self._bad, self._metrics, self._sizes = (
            config,
            run_dir / "nonfinite",
            metrics,
            sizes,
        )
        self._pending: list[Update] = []
        self._skipped_in_a_row = 0
        self._clock = math.nan  # not before the first flush: the first steps compile

    def add(self, update: Update) -> None:
        """Hold what is to be written of an update."""
        self._pending.append(update)

    def restart_clock(self) -> None:
        """Count the time of the next updates from here: what came between was no training."""
        self._clock = time.perf_counter()

    def flush(self) -> None:
        """Wait for what is held, write it, and keep the batches whose update was skipped.

        Raises `DivergedError` after `train.max_nonfinite_steps` of those in a row.
        """
        if not self._pending:
            return
        values = jax.device_get([update.scalars for update in self._pending])
        rows: list[dict[str, Any]] = [
            {"step": update.step, "split": "train", **{k: float(v) for k, v in value.items()}}
            for update, value in zip(self._pending, values, strict=True)
        ]
        if self._config.train.batch_size_schedule != "constant":
            for row, update in zip(rows, self._pending, strict=True):
                row[BATCH_SIZE] = float(update.taken * self._config.train.batch_size)
        self._sizes.learn(rows)
        if math.isfinite(self._sizes.noise_scale):
            rows[-1][SCALE] = self._sizes.noise_scale
        seconds = time.perf_counter() - self._clock
        if math.isfinite(seconds):
            steps = sum(update.taken for update in self._pending)
            per_second = {"tokens": sum(r["tokens"] for r in rows), "steps": steps}
            per_second["sequences"] = steps * self._config.train.batch_size
            rows[-1] |= {
                f"{name}_per_second": amount / seconds for name, amount in per_second.items()
            }
        self._metrics.write(rows)
        log.info("step %d: %s", rows[-1]["step"], spoken(rows[-1]))
        for row, update in zip(rows, self._pending, strict=True):
            self._look(update.step, bool(row["skipped"]), update.batch)
        self._pending.clear()
        self.restart_clock()

    def _look(self, step: int, skipped: bool, batch: Batch) -> None:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if not skipped:
            return
        self._bad.mkdir(parents=True, exist_ok=True)
        # Each process has its rows of the batch only, and keeps those.
        mine = f"-process-{jax.process_index()}.npz" if hosts.is_multiprocess() else ".npz"
        path = self._bad / f"step-{step}{mine}"
        if len(list(self._bad.glob(f"*{mine}"))) < KEPT_BAD_BATCHES:
            with path.open("wb") as file:
                np.savez(file, **batch)
        log.warning("step %d: loss or gradient not finite, update skipped, batch in %s", step, path)
        limit = self._config.train.max_nonfinite_steps
        if self._skipped_in_a_row >= limit:
            raise DivergedError(
                f"step {step}: loss or gradient not finite in {limit} updates in a row, expected finite; "
                f"batches in {self._bad}; try a lower optimizer.peak_learning_rate or a longer warmup"
            )


def spoken(values: Mapping[str, Any]) -> str:
    """The figures in words, for the log."""
    return ", ".join(
        f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float) and k != "step"
    )
