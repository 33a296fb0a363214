"""The interface of an objective: what a train step minimizes.

Its methods are pure functions of parameters and a batch. Pretraining is one objective
(`pretraining.py`), a set of fine-tuning tasks another (`finetuning/objective.py`).
"""

from typing import Any, Protocol

from jax import Array

from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.types import Batch


class Objective(Protocol):
    """A frozen dataclass of plain values.

    Objectives are hashed and compared where programs are compiled: one program serves all that are
    equal.
    """

    def __hash__(self) -> int:
        """Return the same number for equal objectives, as frozen dataclasses do."""
        ...

    def init(self, key: Array) -> Params:
        """Return new random parameters, float32."""
        ...

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Return the parameters that a run begins with.

        `new` are those of `init`; `restored` are the groups of the model that `init_from` had.
        """
        ...

    def logical_axes(self) -> Params:
        """Return the tree of the parameters with a PartitionSpec of logical axes at each leaf."""
        ...

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Return the batch as `counts` and `sums` take it, masked for example."""
        ...

    def counts(self, batch: Batch) -> Any:
        """Return the divisors of the loss for these rows: numbers of targets, float32."""
        ...

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> Any:
        """Return float32 scalars over these rows, which add up over the parts of a batch.

        With dropout if there is a `key`.
        """
        ...

    def loss(self, sums: Any, counts: Any) -> Array:
        """Return the loss to minimize, float32 [].

        `counts` are the whole batch's where `sums` are those of a part: the losses of the parts
        then add up to the batch's.
        """
        ...

    def means(self, sums: Any) -> dict[str, Array]:
        """Return the metrics of the rows that were summed, `loss` among them."""
        ...
