"""What a task is to training and evaluation: examples to rows of ids, scores to predictions,
predictions to figures.

Each kind of task is a module beside this one with a frozen dataclass that does what `Task` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.model.linear_head import linear_axes
from bertjax.types import Batch


@dataclass(frozen=True)
class Rows:
    """Examples as rows of ids, one after another, with what is to be learnt of each.

    An item is what a batch counts: one row, or `choices` rows that follow each other, of one
    example. An example is one item, or several where it was too long for one row.
    """

    ids: np.ndarray
    """int32 [T], all rows' ids, special tokens included."""
    offsets: np.ndarray
    """int64 [rows + 1], where each row begins in `ids`."""
    second: np.ndarray
    """int32 [rows], the place in its row where token type 1 begins; the row's length where none
    does.
    """
    example: np.ndarray
    """int64 [items], the example that each item is, or is a part of; ascending."""
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[items, ...] each, by the name that it has in a batch."""
    token_targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    """int32 [T] each, one value an id; a batch holds them padded with -1."""
    choices: int = 1

    @property
    def items(self) -> int:
        return len(self.example)


class Task(Protocol):
    """One task, its labels known: a frozen dataclass of plain values, equal where they are equal.

    Its parameters are the model's with its own head at `params["tasks"][name]`. A batch holds
    `input_ids`, `input_mask`, `segment_ids` [B, L] int32 (with choices [B, C, L]), `item_weights`
    [B] float32 (0 for the items that fill up a last batch), and the targets of `Rows`. The first
    group of methods is pure JAX, the second numpy.
    """

    @property
    def name(self) -> str:
        """Names its head among the parameters, and its figures where there are several tasks."""
        ...

    @property
    def metric(self) -> str:
        """The figure that the best checkpoint is chosen by; more is better."""
        ...

    @property
    def percent(self) -> bool:
        """Whether that figure is in 0..100, as its field has it, not in 0..1."""
        ...

    @property
    def per_token(self) -> bool:
        """Whether `outputs` has a value for each id of an item, else one for each item."""
        ...

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """New parameters of the head."""
        ...

    def begin(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        """The head that a run begins with: the new one, unless `restored`, the groups of another
        model, have more.
        """
        ...

    def head_axes(self, config: ModelConfig) -> Params:
        """The tree of the head with a PartitionSpec of logical axis names in each leaf's place."""
        ...

    @property
    def generates(self) -> bool:
        """Whether predictions come from `generate`, not from `outputs`."""
        ...

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout
    ) -> Array:
        """Ids [B, T] int32, of tasks that generate."""
        ...

    def scores(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Any:
        """What the loss and the outputs are made of; with dropout if there is a key."""
        ...

    def count(self, batch: Batch) -> Array:
        """The weight of what there is to learn in `batch`: the divisor of the loss, a float32
        scalar.
        """
        ...

    def sums(self, scores: Any, batch: Batch) -> dict[str, Array]:
        """Float32 scalars over the batch: `loss` in nats, `count` as the method, and others to be
        divided by it.
        """
        ...

    def outputs(self, scores: Any) -> Array:
        """What prediction needs of the scores, [B, ...], or [B, L, ...] where `per_token`."""
        ...

    def rows(
        self, examples: Sequence[Any], tokenizer: Tokenizer, max_seq_length: int, *, targets: bool
    ) -> Rows:
        """The examples as rows of at most `max_seq_length` ids; with `targets`, every example must
        have a label.
        """
        ...

    def predict(
        self, outputs: Sequence[np.ndarray], rows: Rows, examples: Sequence[Any]
    ) -> list[Any]:
        """A prediction for each example from the outputs of each item, cut to the item's length
        where `per_token`.
        """
        ...

    def figures(self, predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, float]:
        """The task's figures as the literature names and scales them; all examples have labels."""
        ...


class Linear:
    """What tasks with a linear head have in common, unless they say otherwise.

    The head begins new, predictions are made of `outputs`, which are the scores, and each item
    counts its weight.
    """

    generates = False
    percent = False

    def begin(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        return new

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout
    ) -> Array:
        raise TypeError("no task that generates")

    def head_axes(self, config: ModelConfig) -> Params:
        return linear_axes()

    def count(self, batch: Batch) -> Array:
        return jnp.sum(batch["item_weights"].astype(jnp.float32))

    def outputs(self, scores: Array) -> Array:
        return scores
