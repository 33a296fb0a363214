"""The number of rows in each update: constant, growing with the step, or set by gradient noise."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bertjax.config import TrainConfig

# Decay of the running averages of noise and signal. They cover about the last 50 updates, because
# the estimates of a single update are noisy and may even be negative.
DECAY = 0.98
# Names among the metrics: the two estimates of each update, and the ratio of their averages.
NOISE, SIGNAL, SCALE = "gradient_noise", "gradient_signal", "gradient_noise_scale"


class BatchSchedule:
    """The number of batches of `train.batch_size` rows that each update of a run takes.

    Steps count batches, not updates. So the data, the learning rate and the length of a run are
    the same for every schedule.

    The adaptive schedule follows the gradient noise scale tr(S) / |G|^2 (arXiv 1812.06162), with G
    the gradient over all data and S the covariance of one row's gradient. A batch far smaller than
    the scale loses almost nothing by being doubled, and saves half of the updates; a batch far
    larger wastes rows. Both terms are averaged over updates before they are divided, as the paper's
    appendix A.1 asks.
    """

    def __init__(
        self,
        config: TrainConfig,
        saved: Mapping[str, Any] | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
    ) -> None:
        """Continue from `saved`, the `state` in the checkpoint that a run resumes from.

        `config` is in steps. In a run with phases the ramp begins at step `begin`, and no update
        goes beyond step `end`, where the phase ends.
        """
        self._config = config
        self._begin, self._end = begin, config.steps if end is None else end
        self._batches = 1
        self._noise = self._signal = 0.0
        if saved:
            self._noise, self._signal = saved["noise"], saved["signal"]
        # The other schedules are functions of the step. The checkpoint may be the last one of a
        # phase whose batch had grown.
        if saved and config.batch_size_schedule == "adaptive":
            self._batches = int(saved["times"])

    def batches_at(self, step: int) -> int:
        """Return the number of batches in the update after `step`: a power of two.

        It is at most the number of steps that the phase has left.
        """
        config = self._config
        if config.batch_size_schedule == "ramp":
            doublings = (config.max_batch_size // config.batch_size).bit_length() - 1
            done = doublings * (step - self._begin) // config.batch_size_steps
            self._batches = 2 ** min(doublings, done)
        left = max(1, self._end - step)
        # This is a power of two as well: each size needs its own compiled program, so sizes must be
        # few.
        largest_power = 2 ** (left.bit_length() - 1)
        return min(self._batches, largest_power)

    def batch_size(self, step: int) -> int:
        """Return the number of rows in the update after `step`."""
        return self.batches_at(step) * self._config.batch_size

    def observe(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add the metrics of updates, in order, to the averages."""
        for entry in entries:
            noise, signal = entry.get(NOISE, math.nan), entry.get(SIGNAL, math.nan)
            # A skipped update has no finite estimates, and one NaN would stay in the averages
            # forever.
            if math.isfinite(noise) and math.isfinite(signal):
                self._noise = DECAY * self._noise + (1 - DECAY) * noise
                self._signal = DECAY * self._signal + (1 - DECAY) * signal

    @property
    def noise_scale(self) -> float:
        """The gradient noise scale in rows.

        It is infinite if the gradient is too small to be distinguished from its noise. Before the
        first measurement it is NaN.
        """
        if not self._noise:
            return math.nan
        # Averages that start at 0 are too small at first. Both are too small by the same factor,
        # which cancels here.
        return self._noise / self._signal if self._signal > 0 else math.inf

    def grow(self) -> bool:
        """Double the batch if the noise scale is at least the doubled size; return True if so."""
        config = self._config
        doubled = 2 * self._batches * config.batch_size
        grows = (
            config.batch_size_schedule == "adaptive"
            and doubled <= config.max_batch_size
            and self.noise_scale >= doubled
        )
        if grows:
            self._batches *= 2
        return grows

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the schedule, as JSON."""
        return {"times": self._batches, "noise": self._noise, "signal": self._signal}
