"""The objective of fine-tuning: one encoder, a head for each task, and one task in each batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import ModelConfig
from bertjax.config.finetune import QuantizationAware
from bertjax.finetuning.batches import plain_batch, task_of
from bertjax.model import functional
from bertjax.model.functional import DECODER_GROUPS, TASKS, Params
from bertjax.model.layout import Layout
from bertjax.model.matrices import fake_quantized, matrix_places
from bertjax.tasks.task import Task
from bertjax.types import Batch

ROUNDING: Mapping[QuantizationAware, tuple[int, bool]] = {"int8": (8, True), "int4": (4, False)}
"""Bits of weights, and whether the inputs of products are rounded too, to 8 bits."""
RATES = {"correct": "accuracy"}  # sums whose name changes when they are divided by the count


@dataclass(frozen=True)
class TaskObjective:
    """An `Objective` (`bertjax.training.objective`) of one or more tasks.

    If there are several tasks, the names of metrics end with the task's name: `accuracy/rte`.
    """

    model: ModelConfig
    tasks: tuple[Task, ...]
    reinit_layers: int = 0
    """Number of top layers that stay new, not taken from `init_from` (arXiv 2006.05987)."""
    quantization_aware: QuantizationAware = field(default="none", kw_only=True)
    """How the loss rounds matrices; evaluations do not."""

    @cached_property
    def by_name(self) -> dict[str, Task]:
        """The tasks by their names."""
        return {task.name: task for task in self.tasks}

    def init(self, key: Array) -> Params:
        """Return new parameters: the model's, and the tasks' heads by name in the group `tasks`."""
        # The model gets the key itself, so that its parameters are those of a new pretraining run.
        heads = {}
        for number, task in enumerate(self.tasks, 1):
            heads[task.name] = task.init_head(self.model, jax.random.fold_in(key, number))
        return {**functional.init(self.model, key), TASKS: heads}

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Return the parameters that a run begins with, made from new and restored ones.

        Restored groups replace new ones, except that the top `reinit_layers` layers stay new. Each
        task makes its head from the new head and all restored groups.
        """
        params = {**new}
        for group, leaves in restored.items():
            # The parameters read from `decoder_from` are not a group of their own in the run: a
            # head copies what it needs from them.
            if group != DECODER_GROUPS:
                params[group] = leaves
        if self.reinit_layers:
            params["encoder"] = self._with_new_layers(restored["encoder"], new["encoder"])
        params[TASKS] = {
            task.name: task.initial_params(self.model, new[TASKS][task.name], restored)
            for task in self.tasks
        }
        return params

    def _with_new_layers(self, restored: Params, new: Params) -> Params:
        """Return the parameters of the encoder, with new ones of the top layers."""
        # Layers are stacked along the first axis of each tensor; shared layers are stored once.
        stack = 1 if self.model.share_layers else self.model.num_hidden_layers
        kept = stack - self.reinit_layers
        encoder = {**restored}
        encoder["layers"] = jax.tree.map(
            lambda old, fresh: jnp.concatenate([old[:kept], fresh[kept:]]),
            restored["layers"],
            new["layers"],
        )
        if "mix" in encoder:
            # A row of the mix is for one of the two sublayers of a layer.
            rows = 2 * kept
            encoder["mix"] = jnp.concatenate([restored["mix"][:rows], new["mix"][rows:]])
        return encoder

    def logical_axes(self) -> Params:
        """Return the tree of `init` with a PartitionSpec of logical axis names for each leaf."""
        heads = {task.name: task.head_axes(self.model) for task in self.tasks}
        return {**functional.logical_axes(self.model), TASKS: heads}

    def prepare(self, batch: Batch, key: Array | None = None, step: ArrayLike = 0) -> Batch:
        """Return the batch, with segment ids 0 if the model has one token type only, as RoBERTa."""
        if self.model.type_vocab_size > 1:
            return batch
        return {**batch, "segment_ids": jnp.zeros_like(batch["segment_ids"])}

    def counts(self, batch: Batch) -> Array:
        """Return the divisor of the batch's loss, a float32 scalar."""
        return self.by_name[task_of(batch)].count(plain_batch(batch))

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> dict[str, dict[str, Array]]:
        """Return the sums of the batch's task under its name. Dropout is on if a `key` is given."""
        task, plain = self.by_name[task_of(batch)], plain_batch(batch)
        params = self.rounded(params)
        logits = task.logits(self.model, params, plain, key=key, layout=layout)
        return {task.name: task.sums(logits, plain)}

    def rounded(self, params: Params) -> Params:
        """Return what the loss is computed with: the matrices as `quantization_aware` rounds them.

        They are rounded where they are read, inside the layers, and the gradient passes that.
        """
        if self.quantization_aware == "none":
            return params
        paths = [
            *matrix_places(self.model),
            *(f"{TASKS}/{task.name}/kernel" for task in self.tasks),
        ]
        return fake_quantized(params, paths, *ROUNDING[self.quantization_aware])

    def loss(self, sums: dict[str, dict[str, Array]], counts: Array) -> Array:
        """Return the summed loss, in nats, divided by `counts`; these may be of a larger batch."""
        (own,) = sums.values()  # a batch is of one task
        # If a batch has nothing but padding, its loss is 0, not 0 / 0.
        return own["loss"] / jnp.where(counts > 0, counts, 1)

    def means(self, sums: dict[str, dict[str, Array]]) -> dict[str, Array]:
        """Return the metrics: the sums divided by their count.

        If there are several tasks, the names end with the task's name, and `loss` is there too.
        """
        ((name, own),) = sums.items()
        count = jnp.where(own["count"] > 0, own["count"], 1)
        means = {}
        for key, value in own.items():
            if key != "count":
                means[RATES.get(key, key)] = value / count
        if len(self.tasks) == 1:
            return means
        named = {f"{key}/{name}": value for key, value in means.items()}
        return {"loss": means["loss"], **named}
