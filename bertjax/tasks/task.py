"""The interface of a fine-tuning task: from examples to batches, logits, predictions and figures.

Each kind of task is a folder beside this file, with frozen dataclasses that implement `Task`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.model.heads.soft_targets import soft_losses
from bertjax.model.layout import Layout
from bertjax.model.linear_head import linear_axes
from bertjax.tasks.metric_table import Scale
from bertjax.types import Batch


@dataclass(frozen=True)
class EncodedExamples:
    """Examples as sequences of ids, one after another, with the targets of each.

    An item is one entry of a batch: one row or, for multiple choice, `choices` consecutive rows. An
    example is one item, or several if it was too long for one row.
    """

    ids: np.ndarray
    """int32 [T], the ids of all rows, special tokens included."""
    offsets: np.ndarray
    """int64 [rows + 1], where each row begins in `ids`."""
    second_begins: np.ndarray
    """int32 [rows], the position in each row where segment 1 begins; without one, its length."""
    example_indices: np.ndarray
    """int64 [items], the index of the example that each item comes from; ascending."""
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays [items, ...] by their names in a batch."""
    token_targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays int32 [T] by their names in a batch: one value for each id, padded there with -1."""
    choices: int = 1
    """The number of rows of each item."""

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.example_indices)


class TaskModel(Protocol):
    """The part of a task that is pure JAX: its head, its loss, the outputs for predictions.

    The parameters are those of the encoder with the task's own head at `params["tasks"][name]`. A
    batch holds `input_ids`, `input_mask`, `segment_ids` [B, L] int32 (multiple choice: [B, C, L]),
    `item_weights` [B] float32 (0 for the items that fill up a last batch), and the targets of
    `EncodedExamples`.
    """

    @property
    def name(self) -> str:
        """The name of its head in the parameters, and of its figures next to other tasks."""
        ...

    @property
    def per_token(self) -> bool:
        """True if `outputs` has a value for each token of an item, else one for each item."""
        ...

    @property
    def generates(self) -> bool:
        """True if predictions come from `generate`, not from `outputs`."""
        ...

    def init_head(self, config: ModelConfig, key: Array) -> Params:
        """Return new parameters of the head."""
        ...

    def initial_params(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        """Return the head that a run begins with.

        `new` is a head that `init_head` made, `restored` are the parameters of the model that the
        run starts from.
        """
        ...

    def head_axes(self, config: ModelConfig) -> Params:
        """Return the head's tree with a PartitionSpec of logical axis names for each leaf."""
        ...

    def logits(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the head's outputs, which loss and predictions are made of.

        Dropout is on if a `key` is given.
        """
        ...

    def count(self, batch: Batch) -> Array:
        """Return the total weight of the batch's targets, float32 [], which divides the loss."""
        ...

    def sums(self, logits: Array, batch: Batch) -> dict[str, Array]:
        """Return sums over the batch as float32 scalars.

        `loss` is in nats. `count` is the result of the method `count`; the other sums are to be
        divided by it.
        """
        ...

    def outputs(self, logits: Array) -> Array:
        """Return what predictions need of the logits: [B, ...], or [B, L, ...] if `per_token`."""
        ...

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout
    ) -> Array:
        """Return generated ids, int32 [B, T]; only for tasks with `generates`."""
        ...


class Task(TaskModel, Protocol):
    """One task with its labels, if it has any: a `TaskModel`, its encoding and figures in NumPy.

    Implementations are frozen dataclasses of plain values. Tasks with equal values are equal, so
    that they share compiled programs.
    """

    @property
    def metric(self) -> str:
        """The name of the figure that selects the best checkpoint."""
        ...

    @property
    def metric_scale(self) -> Scale:
        """The range of that figure, and which end of it is the better one."""
        ...

    def encode(
        self, examples: Sequence[Any], tokenizer: Tokenizer, max_seq_length: int, *, targets: bool
    ) -> EncodedExamples:
        """Return the examples as rows of at most `max_seq_length` ids.

        With `targets` every example must have a label.
        """
        ...

    def predict(
        self, outputs: Sequence[np.ndarray], encoded: EncodedExamples, examples: Sequence[Any]
    ) -> list[Any]:
        """Return a prediction for each example.

        `outputs` has one array for each item; if `per_token`, without the values at padding.
        """
        ...

    def figures(self, predictions: Sequence[Any], examples: Sequence[Any]) -> dict[str, float]:
        """Return the task's figures with the literature's names and scales.

        All examples must have labels.
        """
        ...


@runtime_checkable
class TaughtTask(Task, Protocol):
    """A task that a student can learn from a teacher's outputs and layers.

    Its `logits` are `head_logits` of what the encoder computes of `encoder_rows`.
    """

    def encoder_rows(self, batch: Batch, layout: Layout) -> Batch:
        """Return the arrays that the encoder reads, with rows [R, L]."""
        ...

    def head_logits(
        self,
        config: ModelConfig,
        params: Params,
        hidden_BxLxD: Array,
        rows: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the head's outputs on the hidden states of `encoder_rows`."""
        ...

    def soft_weights(self, batch: Batch) -> Array:
        """Return the weight of each loss of `soft_losses`, float32; 0 where it does not count."""
        ...

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the losses of a student's logits against a teacher's, float32.

        The shape is that of `soft_weights`. For classes they are T^2 times the divergence of the
        teacher's probabilities at temperature T, in nats (arXiv 1503.02531).
        """
        ...


class LinearHeadTask(ABC):
    """Default methods of tasks with one linear layer as their head.

    The head starts with new parameters, predictions are made from the logits, and `count` is the
    sum of the items' weights.
    """

    generates = False

    @property
    def metric_scale(self) -> Scale:
        """The scale of most metrics, a share of 1."""
        return Scale.SHARE

    def initial_params(self, config: ModelConfig, new: Params, restored: Params) -> Params:
        """Return the new head: pretrained models have none."""
        return new

    def logits(
        self,
        config: ModelConfig,
        params: Params,
        batch: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the outputs of encoder and head; their shape is that of `head_logits`."""
        rows = self.encoder_rows(batch, layout)
        hidden = functional.encode(config, params, rows, key=key, layout=layout).hidden_BxLxD
        return self.head_logits(config, params, hidden, rows, key=key, layout=layout)

    def encoder_rows(self, batch: Batch, layout: Layout) -> Batch:
        """Return the arrays that the encoder reads, with rows [R, L]: those of the batch."""
        return batch

    @abstractmethod
    def head_logits(
        self,
        config: ModelConfig,
        params: Params,
        hidden_BxLxD: Array,
        rows: Batch,
        *,
        key: Array | None,
        layout: Layout,
    ) -> Array:
        """Return the head's outputs on the hidden states of `encoder_rows`."""

    def generate(
        self, config: ModelConfig, params: Params, batch: Batch, *, layout: Layout
    ) -> Array:
        """Raise `TypeError`: these tasks generate nothing."""
        raise TypeError("no task that generates")

    def head_axes(self, config: ModelConfig) -> Params:
        """Return the logical axes of the layer's kernel and bias."""
        return linear_axes()

    def count(self, batch: Batch) -> Array:
        """Return the sum of the items' weights, a float32 scalar."""
        return jnp.sum(batch["item_weights"].astype(jnp.float32))

    def soft_weights(self, batch: Batch) -> Array:
        """Return the weights of the items, [B]."""
        return batch["item_weights"].astype(jnp.float32)

    def soft_losses(self, logits: Array, taught: Array, batch: Batch, temperature: float) -> Array:
        """Return the loss of each item, [B], where its classes exclude each other."""
        is_real_Bx1 = batch["item_weights"][:, None] > 0
        # Masked before the softmax: a weight of 0 does not remove NaN from a gradient.
        return soft_losses(
            jnp.where(is_real_Bx1, logits, 0), jnp.where(is_real_Bx1, taught, 0), temperature
        )

    def outputs(self, logits: Array) -> Array:
        """Return the logits as they are."""
        return logits
