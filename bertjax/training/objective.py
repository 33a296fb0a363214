"""The interface of an objective: what a train step minimizes, as pure functions of parameters and a
batch.

Pretraining is one objective (`pretraining.py`), a set of fine-tuning tasks another
(`finetuning/objective.py`).
"""

from typing import Any, Protocol

from jax import Array

from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.types import Batch


class Objective(Protocol):
    """A frozen dataclass of plain values: where two are equal, one compiled program serves both."""

    def init(self, key: Array) -> Params:
        """New parameters."""
        ...

    def begin(self, new: Params, restored: Params) -> Params:
        """The parameters that a run begins with: new ones, and what `init_from` had of the model's
        groups.
        """
        ...

    def logical_axes(self) -> Params:
        """The tree of the parameters with a PartitionSpec of logical axis names in each leaf's
        place.
        """
        ...

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """The batch as the loss wants it, such as masked."""
        ...

    def counts(self, batch: Batch) -> Any:
        """The divisors of the loss for these rows."""
        ...

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> Any:
        """Float32 scalars over these rows, which add up over parts of a batch; with dropout if
        there is a key.
        """
        ...

    def loss(self, sums: Any, counts: Any) -> Array:
        """What is trained on; `counts` are the whole batch's where `sums` are a part's."""
        ...

    def means(self, sums: Any) -> dict[str, Array]:
        """The metrics of the rows summed, `loss` among them."""
        ...
