"""Fine-tuning with a teacher: its soft labels and layers are terms beside the tasks' labels."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import Config, DistillConfig
from bertjax.config.distill import SOFT, TERMS
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.batches import plain_batch, task_of
from bertjax.finetuning.load import Finetuned, load_finetuned, read_tasks
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.functional import TASKS, TEACHER, Params
from bertjax.model.heads.soft_targets import weighted_sum
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.tasks.task import Task, TaughtTask
from bertjax.training.batch_source import BatchSource
from bertjax.training.distillation.layer_terms import Both, LayerTerms, mean_terms
from bertjax.training.distillation.student import (
    check_start,
    log_start,
    start_from,
    with_layers,
)
from bertjax.training.distillation.teacher import (
    Teacher,
    check_layer_terms,
    check_same_tokenizer,
    open_teacher,
    teacher_digest,
)
from bertjax.training.objective import Given
from bertjax.training.provenance.data_record import TEACHER_DIGEST
from bertjax.types import Batch


class Counts(NamedTuple):
    """The divisors of the losses of a batch."""

    labels: Array
    terms: dict[str, Array]
    """Those of the terms that are learned from the teacher."""


@dataclass(frozen=True)
class DistilledTasks(TaskObjective):
    """The objective of tasks (`TaskObjective`) with a teacher that has the same tasks.

    The teacher's parameters are in the group `TEACHER` of those that `sums` is given (`Given`).
    """

    teacher: TaskObjective | None = None
    settings: DistillConfig = field(default_factory=DistillConfig)

    @cached_property
    def weights(self) -> dict[str, float]:
        """The weight of each term that is learned."""
        return self.settings.weights_of(TERMS)

    @cached_property
    def layer_terms(self) -> LayerTerms:
        """The terms of the layers of both."""
        assert self.teacher is not None
        return LayerTerms(self.model, self.teacher.model, self.settings)

    def init(self, key: Array) -> Params:
        """Return new parameters: those of `TaskObjective`, and of the terms of the layers."""
        # The numbers before it are those of the heads.
        own = self.layer_terms.init(jax.random.fold_in(key, len(self.tasks) + 1))
        return {**super().init(key), **own}

    def initial_params(self, new: Params, restored: Params) -> Params:
        """Return the parameters that a run begins with; a teacher's heads come with its layers."""
        own = {group: leaves for group, leaves in restored.items() if group != TASKS}
        params: dict[str, Any] = {**super().initial_params(new, own)}
        return {**params, TASKS: {**params[TASKS], **restored.get(TASKS, {})}}

    def logical_axes(self) -> Params:
        """Return the tree of `init` with a PartitionSpec of logical axis names for each leaf."""
        return {**super().logical_axes(), **self.layer_terms.logical_axes()}

    def prepare(self, batch: Batch, key: Array | None = None, step: ArrayLike = 0) -> Batch:
        """Return the batch as it is: student and teacher may have other token types."""
        return batch

    def counts(self, batch: Batch) -> Counts:  # type: ignore[override]
        """Return the divisors of the batch's losses."""
        task, plain = _task_of(self, batch), plain_batch(batch)
        rows = task.encoder_rows(plain, ANYWHERE)
        return Counts(task.count(plain), self._term_counts(task, plain, rows))

    def _term_counts(self, task: TaughtTask, batch: Batch, rows: Batch) -> dict[str, Array]:
        counts = self.layer_terms.counts(rows)
        if SOFT in self.weights:
            counts[SOFT] = jnp.sum(task.soft_weights(batch))
        return counts

    def sums(
        self, params: Params, batch: Batch, *, key: Array | None, layout: Layout
    ) -> dict[str, dict[str, Array]]:
        """Return the sums of the batch's task by its name.

        Each term that is learned from the teacher is among them, as `TERM_loss` and `TERM_count`.
        """
        assert self.teacher is not None
        task, taught_task = _task_of(self, batch), _task_of(self.teacher, batch)
        plain = plain_batch(super().prepare(batch))
        taught_plain = plain_batch(self.teacher.prepare(batch))
        both = Both(self.rounded(params), params[TEACHER])
        rows = Both(
            task.encoder_rows(plain, layout), taught_task.encoder_rows(taught_plain, layout)
        )
        encoded = self.layer_terms.encode(both, rows, key=key, layout=layout)
        logits = task.head_logits(
            self.model, both.own, encoded.own.hidden_BxLxD, rows.own, key=key, layout=layout
        )
        term_sums: dict[str, Array] = {}
        if SOFT in self.weights:
            taught = taught_task.head_logits(
                self.teacher.model,
                both.taught,
                encoded.taught.hidden_BxLxD,
                rows.taught,
                key=None,
                layout=layout,
            )
            losses = task.soft_losses(logits, taught, plain, self.settings.temperature)
            term_sums[SOFT] = weighted_sum(losses, task.soft_weights(plain))
        term_sums |= self.layer_terms.sums(both, rows, encoded, layout)
        named = {f"{term}_loss": value for term, value in term_sums.items()}
        counts = self._term_counts(task, plain, rows.own)
        named |= {f"{term}_count": value for term, value in counts.items()}
        return {task.name: {**task.sums(logits, plain), **named}}

    def loss(self, sums: dict[str, dict[str, Array]], counts: Any) -> Array:
        """Return the weighted sum of the mean losses; `counts` may be of a larger batch."""
        total = self.settings.objective_weight * super().loss(sums, counts.labels)
        for term, mean in self._term_means(sums, counts).items():
            total += self.weights[term] * mean
        return total

    def _term_means(self, sums: dict[str, dict[str, Array]], counts: Counts) -> dict[str, Array]:
        (own,) = sums.values()  # a batch is of one task
        return mean_terms({term: own[f"{term}_loss"] for term in self.weights}, counts.terms)

    def means(self, sums: dict[str, dict[str, Array]]) -> dict[str, Array]:
        """Return the metrics: those of `TaskObjective`, where `loss` is the sum of all terms.

        The loss of the labels alone is `label_loss`, that of each term `TERM_loss`.
        """
        ((name, own),) = sums.items()
        counts = Counts(own["count"], {term: own[f"{term}_count"] for term in self.weights})
        of_terms = {f"{term}_{part}" for term in self.weights for part in ("loss", "count")}
        labels = {key: value for key, value in own.items() if key not in of_terms}
        suffix = f"/{name}" if len(self.tasks) > 1 else ""
        means = super().means({name: labels})
        terms = self._term_means(sums, counts)
        return {
            **means,
            "loss": self.loss(sums, counts),
            f"label_loss{suffix}": means[f"loss{suffix}"],
            **{f"{term}_loss{suffix}": mean for term, mean in terms.items()},
        }


def _task_of(objective: TaskObjective, batch: Batch) -> TaughtTask:
    """Return the task of a batch; `check_taught` has refused those that cannot be taught."""
    task = objective.by_name[task_of(batch)]
    assert isinstance(task, TaughtTask)
    return task


def check_taught(
    config: Config, teacher: Teacher, tasks: Collection[Task], tokenizer: Tokenizer
) -> Config:
    """Return `config` with the teacher's layers; check what the two must have in common.

    Raises `UserError` for a teacher with another tokenizer, without a task of the student, or with
    other labels of it; and for terms by which the two models cannot be compared.
    """
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
    check_layer_terms(config.distill, config.model, teacher.model)
    if config.distill.start == "teacher" and not config.init_from:
        check_start(config.distill, config.model, teacher.model)
    return config


def _check_task(config: Config, task: Task, taught: dict[str, Task]) -> None:
    """Raise `UserError` unless a task of the student can learn from the teacher's of its name."""
    where = f"distill.teacher: task {task.name}"
    check(
        isinstance(task, TaughtTask),
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
