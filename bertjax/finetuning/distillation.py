"""Fine-tuning with a teacher: its soft labels are a term beside the labels of the tasks."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import Config, DistillConfig
from bertjax.config.distill import TERMS
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.batches import plain_batch, task_of
from bertjax.finetuning.load import Finetuned, load_finetuned, read_tasks
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.functional import TASKS, TEACHER, Params
from bertjax.model.heads.soft_targets import weighted_sum
from bertjax.model.layout import Layout
from bertjax.tasks.task import Task
from bertjax.training.batch_source import BatchSource
from bertjax.training.distillation.student import (
    check_start,
    log_start,
    start_from,
    with_layers,
)
from bertjax.training.distillation.teacher import (
    Teacher,
    check_same_tokenizer,
    open_teacher,
    teacher_digest,
)
from bertjax.training.objective import Given
from bertjax.training.provenance.data_record import TEACHER_DIGEST
from bertjax.types import Batch

# Terms of the teacher's layers, which the tasks' own forward pass does not keep.
OF_TEXT = tuple(f"{term}_weight" for term in TERMS if term != "soft")


class Counts(NamedTuple):
    """The divisors of the two losses of a batch."""

    labels: Array
    soft: Array


@dataclass(frozen=True)
class DistilledTasks(TaskObjective):
    """The objective of tasks (`TaskObjective`) with a teacher that has the same tasks.

    The teacher's parameters are in the group `TEACHER` of those that `sums` is given (`Given`).
    """

    teacher: TaskObjective | None = None
    settings: DistillConfig = field(default_factory=DistillConfig)

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Return the parameters that a run begins with; a teacher's heads come with its layers."""
        own = {group: leaves for group, leaves in restored.items() if group != TASKS}
        params: dict[str, Any] = {**super().initial_params(new, own)}
        return {**params, TASKS: {**params[TASKS], **restored.get(TASKS, {})}}

    def prepare(self, batch: Batch, key: Array | None = None, step: ArrayLike = 0) -> Batch:
        """Return the batch as it is: student and teacher may have other token types."""
        return batch

    def counts(self, batch: Batch) -> Counts:  # type: ignore[override]
        """Return the divisors of the batch's losses."""
        task, plain = self.by_name[task_of(batch)], plain_batch(batch)
        return Counts(task.count(plain), jnp.sum(task.soft_weights(plain)))

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> dict[str, dict[str, Array]]:
        """Return the sums of the batch's task, with `soft_loss` and `soft_count`, by its name."""
        assert self.teacher is not None
        task = self.by_name[task_of(batch)]
        plain = plain_batch(super().prepare(batch))
        own = self.rounded(params)
        logits = task.logits(self.model, own, plain, key=key, layout=layout)
        taught_batch = plain_batch(self.teacher.prepare(batch))
        taught = self.teacher.by_name[task.name].logits(
            self.teacher.model, params[TEACHER], taught_batch, key=None, layout=layout
        )
        weights = task.soft_weights(plain)
        losses = task.soft_losses(logits, taught, plain, self.settings.temperature)
        soft = {"soft_loss": weighted_sum(losses, weights), "soft_count": jnp.sum(weights)}
        return {task.name: {**task.sums(logits, plain), **soft}}

    def loss(self, sums: dict[str, dict[str, Array]], counts: Any) -> Array:
        """Return the weighted sum of the two mean losses; `counts` may be of a larger batch."""
        (own,) = sums.values()  # a batch is of one task
        labels = super().loss(sums, counts.labels)
        soft = own["soft_loss"] / jnp.where(counts.soft > 0, counts.soft, 1)
        settings = self.settings
        return settings.objective_weight * labels + settings.soft_weight * soft

    def means(self, sums: dict[str, dict[str, Array]]) -> dict[str, Array]:
        """Return the metrics: those of `TaskObjective`, where `loss` is the sum of both terms.

        The loss of the labels alone is `label_loss`, that of the teacher's `soft_loss`.
        """
        ((name, own),) = sums.items()
        labels = {key: value for key, value in own.items() if not key.startswith("soft_")}
        suffix = f"/{name}" if len(self.tasks) > 1 else ""
        means = super().means({name: labels})
        count = jnp.where(own["soft_count"] > 0, own["soft_count"], 1)
        return {
            **means,
            "loss": self.loss(sums, Counts(own["count"], own["soft_count"])),
            f"label_loss{suffix}": means[f"loss{suffix}"],
            f"soft_loss{suffix}": own["soft_loss"] / count,
        }


def check_taught(
    config: Config, teacher: Teacher, tasks: Collection[Task], tokenizer: Tokenizer
) -> Config:
    """Return `config` with the teacher's layers; check what the two must have in common.

    Raises `UserError` for a teacher with another tokenizer, without a task of the student, or with
    other labels of it; and for terms that need the layers of both.
    """
    for name in OF_TEXT:
        check(
            getattr(config.distill, name) == 0,
            where=f"distill.{name}",
            found=getattr(config.distill, name),
            expected="0 for tasks, of which the teacher's labels are learned alone",
        )
    check_same_tokenizer(teacher, tokenizer, where="the student's tokenizer")
    by_name = {task.name: task for task in read_tasks(teacher.checkpoint)}
    for task in tasks:
        _check_task(config, task, by_name)
    check(
        config.finetune.max_seq_length <= teacher.model.max_length,
        where="finetune.max_seq_length",
        found=config.finetune.max_seq_length,
        expected=f"at most the teacher's positions ({teacher.model.max_length})",
    )
    config = with_layers(config, teacher.model)
    if config.distill.start == "teacher" and not config.init_from:
        check_start(config.distill, config.model, teacher.model)
    return config


def _check_task(config: Config, task: Task, taught: dict[str, Task]) -> None:
    """Raise `UserError` unless a task of the student can learn from the teacher's of its name."""
    where = f"distill.teacher: task {task.name}"
    check(
        task.has_soft_labels,
        where=where,
        found="a task that generates texts",
        expected="one with labels, numbers or answers",
    )
    other = taught.get(task.name)
    check(
        other is not None,
        where=where,
        found=f"{', '.join(taught)} alone",
        expected=f"a teacher that was fine-tuned on {task.name}",
    )
    check(
        type(other) is type(task),
        where=where,
        found=type(other).__name__,
        expected=f"{type(task).__name__}, as the student's",
    )
    own_labels, labels = getattr(task, "labels", ()), getattr(other, "labels", ())
    check(
        own_labels == labels,
        where=f"{where}: labels",
        found=_shown(labels),
        expected=f"{_shown(own_labels)} in this order, as in the student's data",
    )


def _shown(labels: Collection[str]) -> str:
    shown = [*labels][:8]
    return ", ".join(shown) + (" and more" if len(labels) > len(shown) else "")


class Taught(NamedTuple):
    """What the training loop needs of a run with a teacher."""

    objective: DistilledTasks
    source: BatchSource
    given: Given


def taught(config: Config, objective: TaskObjective, source: BatchSource) -> Taught:
    """Read the teacher, and return objective and source of the tasks with it."""
    teacher = open_teacher(config.distill.teacher, config.mesh)
    finetuned = load_finetuned(teacher.checkpoint, teacher.config)
    distilled, given = with_teacher(config, objective, finetuned)
    facts = {**source.facts, TEACHER_DIGEST: teacher_digest(teacher)}
    return Taught(distilled, dataclasses.replace(source, facts=facts), given)


def with_teacher(
    config: Config, objective: TaskObjective, teacher: Finetuned
) -> tuple[DistilledTasks, Given]:
    """Return the objective with a teacher, and what the run is given by it."""
    settings = dataclasses.replace(config.distill, teacher="")
    distilled = DistilledTasks(
        objective.model,
        objective.tasks,
        objective.reinit_layers,
        teacher.objective,
        settings,
        quantization_aware=objective.quantization_aware,
    )

    def start() -> Params:
        if config.distill.start == "random":
            return {}
        groups = start_from(config.distill, config.model, teacher.params)
        log_start(config.distill, teacher.checkpoint)
        heads = teacher.params[TASKS]
        # Copies, as those of the layers are.
        own = {task.name: jax.tree.map(jnp.copy, heads[task.name]) for task in objective.tasks}
        if config.finetune.reinit_pooler:
            groups.pop("pooler", None)
        return {**groups, TASKS: own}

    return distilled, Given({TEACHER: teacher.params}, start)
