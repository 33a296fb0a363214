"""The interface of an objective: what a train step minimizes.

Its methods are pure functions of parameters and a batch. Pretraining is one objective
(`pretraining.py`), a set of fine-tuning tasks another (`finetuning/objective.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array
from jax.typing import ArrayLike

from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.types import Batch


class Given(NamedTuple):
    """What a run has beside the parameters that it trains, such as a teacher."""

    params: Params
    """Groups of parameters that `Objective.sums` finds among its own. They are arguments of the
    step, get no gradient, and are not in the state: no moments, not in checkpoints.
    """
    start: Callable[[], Mapping[str, Any]] = dict
    """Function that returns the groups that a run begins with where it has no `init_from`; they
    are the `restored` of `Objective.initial_params`. Without any, all parameters are new.
    """


NOTHING = Given({})


class Objective(Protocol):
    """A quantity that a train step minimizes, with the parameters that it depends on.

    Implementations are frozen dataclasses of plain values. Objectives are part of the key under
    which compiled programs are kept, so equal objectives share one program.
    """

    def __hash__(self) -> int:
        """Return the same number for equal objectives, as frozen dataclasses do."""
        ...

    def init(self, key: Array) -> Params:
        """Return new random parameters, float32."""
        ...

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Return the parameters that a run begins with.

        `new` are those of `init`. `restored` are the parameter groups of the model (`embeddings`,
        `encoder`, heads) that the checkpoint of `init_from` had.
        """
        ...

    def logical_axes(self) -> Params:
        """Return the tree of the parameters with a PartitionSpec of logical axes at each leaf."""
        ...

    def prepare(self, batch: Batch, key: Array, step: ArrayLike = 0) -> Batch:
        """Return the batch in the form that `counts` and `sums` need: with masks, for example.

        `step` is the place in the schedules: that of the run, int32 [], or, with a budget of time,
        the fraction that has passed times `train.steps`, float32 [].
        """
        ...

    def counts(self, batch: Batch) -> Any:
        """Return the divisors of the loss for these rows: numbers of targets, float32.

        One scalar or a tuple of scalars, as the objective's own `loss` takes them.
        """
        ...

    def sums(self, params: Params, batch: Batch, *, key: Array | None, layout: Layout) -> Any:
        """Return float32 scalars over these rows, which add up over the parts of a batch.

        With dropout if there is a `key`.
        """
        ...

    def loss(self, sums: Any, counts: Any) -> Array:
        """Return the loss to minimize, float32 [].

        `sums` may be those of one part of a batch. If `counts` are then those of the whole batch,
        the losses of the parts add up to the loss of the batch.
        """
        ...

    def means(self, sums: Any) -> dict[str, Array]:
        """Return the metrics of the rows that were summed, `loss` among them."""
        ...
