"""Predictions and figures of tasks.

Each item is predicted once, whatever the number of devices and processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.finetuning.batches import BatchShape, eval_batches, item_lengths
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.functional import Params
from bertjax.number_text import unsigned_zero
from bertjax.parallel import rules
from bertjax.parallel.announce import announce_once
from bertjax.parallel.hosts import global_batch, process_row_indices
from bertjax.tasks.task import EncodedExamples, Task
from bertjax.types import Batch


@dataclass(frozen=True)
class Split:
    """Examples of one task that are predicted together."""

    task: str
    """The task's name."""
    name: str
    """The split's part in the names of its figures.

    It is empty for the main validation set of a task, and `mismatched` for the second one of MNLI.
    """
    examples: Sequence[Any]
    encoded: EncodedExamples
    """The examples as rows of ids."""


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of a split."""

    predictions: list[Any]
    """One for each example."""
    figures: dict[str, float]
    """Values by name, with `loss` in nats; empty if the split was predicted without its labels."""


class AssessedSplit(NamedTuple):
    """A split with its task and its evaluation."""

    task: Task
    split: Split
    evaluated: Evaluated


Assessed = Sequence[AssessedSplit]


def evaluate_split(
    config: Config,
    objective: TaskObjective,
    mesh: Mesh,
    params: Params,
    split: Split,
    pad_id: int,
    *,
    labelled: bool,
) -> Evaluated:
    """Predict a split and, if it is `labelled`, compute its figures.

    All processes must call this, and all get the same result.
    """
    task, encoded = objective.by_name[split.task], split.encoded
    batch_size = config.train.batch_size
    shape = BatchShape(batch_size, config.row_lengths, config.finetune.max_seq_length, pad_id)
    # Not in `_eval_step`, whose cache outlives a run: the log of the next would lack the line.
    announce_once(f"the predictions of {task.name}", (objective, mesh, labelled))
    step = _eval_step(objective, mesh, task.name, labelled)
    outputs: list[Any] = [None] * encoded.items
    lengths = item_lengths(encoded, shape.max_seq_length)
    totals: dict[str, float] = {}
    row_indices = process_row_indices(mesh, batch_size)
    for items, batch in eval_batches(encoded, shape, row_indices=row_indices):
        arrays = global_batch(mesh, batch, batch_size)
        sums, batch_outputs = jax.device_get(step(params, arrays))
        # Added in float64: a float32 sum over thousands of batches would lose digits of the loss.
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        for item, output in zip(items, batch_outputs, strict=True):
            if item >= 0:
                outputs[item] = output[: lengths[item]] if task.per_token else output
    predictions = task.predict(outputs, encoded, split.examples)
    if not labelled:
        return Evaluated(predictions, {})
    values = task.figures(predictions, split.examples)
    figures = {name: unsigned_zero(value) for name, value in values.items()}
    # If the split has no targets there is no loss: it would be 0 / 0.
    if totals.get("count"):
        figures["loss"] = totals["loss"] / totals["count"]
    return Evaluated(predictions, figures)


# Cached: otherwise each evaluation of a run would make a new `jax.jit` and compile it again.
@lru_cache(maxsize=32)  # more than GLUE needs: two for each task, with labels and without
def _eval_step(
    objective: TaskObjective, mesh: Mesh, name: str, labelled: bool
) -> Callable[[Params, Batch], Any]:
    """Return the compiled function (params, batch) -> (sums, outputs); all processes get both."""
    task, layout = objective.by_name[name], rules.MeshLayout(mesh)

    def step(params: Params, batch: Batch) -> tuple[dict[str, Any], Any]:
        batch = objective.prepare(batch)
        # `logits` needs the true targets, which examples without labels do not have.
        if task.generates and not labelled:
            return {}, task.generate(objective.model, params, batch, layout=layout)
        logits = task.logits(objective.model, params, batch, key=None, layout=layout)
        sums = task.sums(logits, batch) if labelled else {}
        if task.generates:
            return sums, task.generate(objective.model, params, batch, layout=layout)
        return sums, task.outputs(logits)

    return jax.jit(
        step,
        # Parameters stay where they are: kernels in sparse form have other arrays.
        in_shardings=(None, rules.batch_sharding(mesh)),
        # Replicated: each process needs the outputs of all items, and can read only what its own
        # devices hold.
        out_shardings=rules.replicated(mesh),
    )


def evaluate_splits(
    config: Config,
    objective: TaskObjective,
    mesh: Mesh,
    params: Params,
    splits: Sequence[Split],
    pad_id: int,
) -> tuple[Assessed, dict[str, float]]:
    """Evaluate labelled splits; return each with its evaluation, and all figures by name.

    All processes must call this, and all get the same result.
    """
    assessed = []
    by_split = {}
    for split in splits:
        evaluated = evaluate_split(config, objective, mesh, params, split, pad_id, labelled=True)
        assessed.append(AssessedSplit(objective.by_name[split.task], split, evaluated))
        by_split[split.task, split.name] = evaluated.figures
    return assessed, named_figures(by_split, objective.tasks)


def named_figures(
    by_split: Mapping[tuple[str, str], dict[str, float]], tasks: Sequence[Task]
) -> dict[str, float]:
    """Return the figures of all splits, each under a unique name, and `score`.

    `by_split` maps (task, split) to the figures of the split; the name of a main split is empty.

    If there is one task, the names are `METRIC` for its main split and `METRIC/SPLIT` for the
    others. If there are several tasks, the names are `METRIC/TASK` and `METRIC/TASK-SPLIT`, and
    `loss` is the mean of the tasks' losses on their main splits, if each has one.

    `score` is the mean over tasks of the metric that `Task.metric` names, on the main split, each
    converted by its `Scale`: higher is better, and percentages are shares.
    """
    is_multitask = len(tasks) > 1
    named: dict[str, float] = {}
    for (task, split), figures in by_split.items():
        for name, value in figures.items():
            named[figure_name(name, task, split, is_multitask)] = value
    scores, losses = [], []
    for each in tasks:
        own = by_split[each.name, ""]
        scores.append(each.metric_scale.score(own[each.metric]))
        if "loss" in own:
            losses.append(own["loss"])
    # An error of 0 gives the score -0.0.
    named["score"] = unsigned_zero(float(np.mean(scores)))
    if is_multitask and len(losses) == len(tasks):
        named["loss"] = float(np.mean(losses))
    return named


def figure_name(metric: str, task: str, split: str, is_multitask: bool) -> str:
    """Return the name of a split's figure among those of all splits; see `named_figures`."""
    parts = [task, split] if is_multitask else [split]
    suffix = "-".join(part for part in parts if part)
    return f"{metric}/{suffix}" if suffix else metric


def task_evaluator(
    objective: TaskObjective, splits: Sequence[Split], pad_id: int, config: Config, mesh: Mesh
) -> Callable[[Params], dict[str, float]]:
    """Return the function that the training loop calls to get the held-out figures of parameters.

    See `bertjax.training.batch_source.BatchSource.make_evaluator`.
    """

    def evaluate(params: Params) -> dict[str, float]:
        _, figures = evaluate_splits(config, objective, mesh, params, splits, pad_id)
        return figures

    return evaluate
