"""Replaced-token detection that also shows which words were drawn, for a replay."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.training.replaced.losses import DetectionSums
from bertjax.training.replaced.objective import ReplacedTokens
from bertjax.training.step.gradients import rows_in
from bertjax.types import Batch

DRAWN = "drawn"
"""Name among the metrics of the drawn words, int32 [B, P]."""
ROWS = "row_numbers"
"""Name of the array of a batch with the number of each row, int32 [B, 1]."""


class DrawnSums(NamedTuple):
    """The sums over rows of a batch, and the words that were drawn in them."""

    sums: DetectionSums
    drawn: Array
    """int32 [B, P] of the whole batch: 0 in rows of other parts, so parts add up."""


@dataclass(frozen=True)
class Drawn:
    """An `Objective` that is `base`, and whose means have the drawn words (`DRAWN`)."""

    base: ReplacedTokens
    rows: int
    """Number of rows of the whole batch."""

    def init(self, key: Array) -> Params:
        return self.base.init(key)

    def initial_params(self, new: Params, restored: Params) -> Params:
        return self.base.initial_params(new, restored)

    def logical_axes(self) -> Params:
        return self.base.logical_axes()

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        # An array of the batch, so that it goes with the rows into the parts of accumulation.
        numbers = jnp.arange(rows_in(batch), dtype=jnp.int32)[:, None]
        return {**self.base.prepare(batch, key, step), ROWS: numbers}

    def counts(self, batch: Batch) -> tuple[Array, Array]:
        return self.base.counts(batch)

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> DrawnSums:
        sums, drawn = self.base.sums_and_samples(params, batch, key=key, layout=layout)
        nothing = jnp.zeros((self.rows, drawn.shape[1]), jnp.int32)
        return DrawnSums(sums, nothing.at[jnp.asarray(batch[ROWS])[:, 0]].set(drawn))

    def loss(self, sums: DrawnSums, counts: tuple[Array, Array]) -> Array:
        return self.base.loss(sums.sums, counts)

    def means(self, sums: Any) -> dict[str, Array]:
        return {**self.base.means(sums.sums), DRAWN: sums.drawn}
