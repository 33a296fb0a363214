"""How many rows the next update has: as many as ever, more by and by, or as the gradient's noise
allows.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bertjax.config import TrainConfig

# Of the averages of the gradient's noise and signal over updates.
DECAY = 0.98
NOISE, SIGNAL, SCALE = "gradient_noise", "gradient_signal", "gradient_noise_scale"


class BatchSize:
    """A run's batch size, in batches of `train.batch_size` rows, of which an update takes one or
    more: its `times`.

    Steps count batches, not updates; so data, learning rate and length of a run are the same for
    all sizes.

    The gradient noise scale is tr(S) / |G|^2 (arXiv 1812.06162), with G the gradient over all data
    and S the covariance of that of one row. Batches far smaller lose next to nothing by being
    doubled, and save half of the updates; batches far larger waste rows. Both terms are averaged
    over updates before they are divided, as its appendix A.1 says.
    """

    def __init__(self, config: TrainConfig, known: Mapping[str, Any] | None = None) -> None:
        """`known` is what `state` gave, in the checkpoint that a run goes on from."""
        self._config = config
        self._times = 1
        self._noise = self._signal = 0.0
        if known:
            self._times, self._noise, self._signal = (
                int(known["times"]),
                known["noise"],
                known["signal"],
            )

    def times(self, step: int) -> int:
        """Batches in the update after `step`; a power of two, and no more than are left."""
        c = self._config
        if c.batch_size_schedule == "ramp":
            doublings = (c.max_batch_size // c.batch_size).bit_length() - 1
            self._times = 2 ** min(doublings, doublings * step // c.batch_size_steps)
        left = max(1, c.steps - step)
        return min(self._times, 2 ** (left.bit_length() - 1))

    def rows(self, step: int) -> int:
        """Rows of the update after `step`."""
        return self.times(step) * self._config.batch_size

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in the metrics of updates, in order."""
        for row in rows:
            noise, signal = row.get(NOISE, math.nan), row.get(SIGNAL, math.nan)
            if math.isfinite(noise) and math.isfinite(signal):
                self._noise = DECAY * self._noise + (1 - DECAY) * noise
                self._signal = DECAY * self._signal + (1 - DECAY) * signal

    @property
    def noise_scale(self) -> float:
        """In rows; infinite while the gradient cannot be told from its noise, NaN where nothing was
        measured.
        """
        if not self._noise:
            return math.nan
        return self._noise / self._signal if self._signal > 0 else math.inf

    def decide(self) -> bool:
        """Double the size where the noise scale is at least that; returns whether it was."""
        c = self._config
        twice = 2 * self._times * c.batch_size
        grows = (
            c.batch_size_schedule == "adaptive"
            and twice <= c.max_batch_size
            and self.noise_scale >= twice
        )
        self._times *= 2 if grows else 1
        return grows

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"times": self._times, "noise": self._noise, "signal": self._signal}
