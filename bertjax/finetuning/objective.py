"""What fine-tuning trains: an encoder with a head for each task, a batch being of one of them."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.finetuning.batches import plain_batch, task_of
from bertjax.model import functional
from bertjax.model.functional import DECODER_GROUPS, TASKS, Params
from bertjax.model.layout import Layout
from bertjax.tasks.task import Task
from bertjax.types import Batch


@dataclass(frozen=True)
class TaskObjective:
    """An `Objective` (bertjax.training.objective) of tasks; of several each one's metrics have its
    name.
    """

    model: ModelConfig
    tasks: tuple[Task, ...]
    reinit_layers: int = 0
    """Layers at the top that do not come from `init_from`."""

    @cached_property
    def by_name(self) -> dict[str, Task]:
        return {task.name: task for task in self.tasks}

    def init(self, key: Array) -> Params:
        heads = {
            task.name: task.init_head(self.model, jax.random.fold_in(key, number + 1))
            for number, task in enumerate(self.tasks)
        }
        return {**functional.init(self.model, key), TASKS: heads}

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Restored groups with the top layers new again; each head as its task makes it from what
        was restored.
        """
        kept = (1 if self.model.share_layers else self.model.num_hidden_layers) - self.reinit_layers
        begun = {
            **new,
            **{group: leaves for group, leaves in restored.items() if group != DECODER_GROUPS},
        }
        if self.reinit_layers:
            begun["encoder"] = jax.tree.map(
                lambda old, fresh: jnp.concatenate([old[:kept], fresh[kept:]]),
                restored["encoder"],
                new["encoder"],
            )
        heads = {
            task.name: task.begin(self.model, new[TASKS][task.name], restored)
            for task in self.tasks
        }
        return {**begun, TASKS: heads}

    def logical_axes(self) -> Params:
        heads = {task.name: task.head_axes(self.model) for task in self.tasks}
        return {**functional.logical_axes(self.model), TASKS: heads}

    def prepare(self, batch: Batch, key: Array | None = None) -> Batch:
        """All of token type 0 where the model knows no other, as RoBERTa."""
        if self.model.type_vocab_size > 1:
            return batch
        return {**batch, "segment_ids": jnp.zeros_like(batch["segment_ids"])}

    def counts(self, batch: Batch) -> Array:
        return self.by_name[task_of(batch)].count(plain_batch(batch))

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> dict[str, dict[str, Array]]:
        task, batch = self.by_name[task_of(batch)], plain_batch(batch)
        scores = task.logits(self.model, params, batch, key=key, layout=layout)
        return {task.name: task.sums(scores, batch)}

    def loss(self, sums: dict[str, dict[str, Array]], counts: Array) -> Array:
        (own,) = sums.values()
        return own["loss"] / jnp.where(counts > 0, counts, 1)

    def means(self, sums: dict[str, dict[str, Array]]) -> dict[str, Array]:
        ((name, own),) = sums.items()
        count = jnp.where(own["count"] > 0, own["count"], 1)
        means = {RATES.get(key, key): value / count for key, value in own.items() if key != "count"}
        if len(self.tasks) == 1:
            return means
        return {"loss": means["loss"], **{f"{key}/{name}": value for key, value in means.items()}}


RATES = {"correct": "accuracy"}  # what a sum is called when it is divided by the count
