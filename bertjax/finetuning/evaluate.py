"""Predictions and figures of tasks: each item once, on any number of devices and processes."""

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
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch, process_row_indices
from bertjax.tasks.task import EncodedExamples, Task
from bertjax.types import Batch


@dataclass(frozen=True)
class Split:
    """Examples of one task that are predicted together."""

    task: str
    """The task's name."""
    name: str
    """The part of its figures' names: empty for the task's own validation set, `mismatched` for
    the other one of MNLI.
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
    """By name, with `loss` in nats; empty where the examples have no labels."""


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
    """Predict a split, and compute its figures if it is `labelled`.

    Of several processes all call this and get the same.
    """
    task, encoded = objective.by_name[split.task], split.encoded
    batch_size = config.train.batch_size
    shape = BatchShape(batch_size, config.row_lengths, config.finetune.max_seq_length, pad_id)
    step = _eval_step(objective, mesh, task.name, labelled)
    outputs: list[Any] = [None] * encoded.items
    lengths = item_lengths(encoded, shape.max_seq_length)
    totals: dict[str, float] = {}
    row_indices = process_row_indices(mesh, batch_size)
    for items, batch in eval_batches(encoded, shape, row_indices=row_indices):
        arrays = global_batch(mesh, batch, batch_size)
        sums, batch_outputs = jax.device_get(step(params, arrays))
        # In float64: a float32 sum over thousands of batches would lose digits of the loss.
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        for item, output in zip(items, batch_outputs, strict=True):
            if item >= 0:
                outputs[item] = output[: lengths[item]] if task.per_token else output
    predictions = task.predict(outputs, encoded, split.examples)
    if not labelled:
        return Evaluated(predictions, {})
    figures = dict(task.figures(predictions, split.examples))
    # Without a single target there is no loss: it would be 0 / 0.
    if totals.get("count"):
        figures["loss"] = totals["loss"] / totals["count"]
    return Evaluated(predictions, figures)


# A new `jax.jit` would be compiled again at each evaluation of a run, so it is kept.
@lru_cache(maxsize=32)  # above twice the tasks of GLUE: with labels and without
def _eval_step(
    objective: TaskObjective, mesh: Mesh, name: str, labelled: bool
) -> Callable[[Params, Batch], Any]:
    """Compile (params, batch) to (sums, outputs), both of which every process gets in full."""
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

    shardings = rules.tree_shardings(mesh, objective.logical_axes())
    return jax.jit(
        step,
        in_shardings=(shardings, rules.batch_sharding(mesh)),
        # A process reads only what its own devices hold, and each needs the outputs of all items.
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
    """Evaluate labelled splits: each with its evaluation, and all figures by name.

    Of several processes all call this and get the same.
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
    """Return the figures of all splits, each with a name of its own, and `score`.

    `by_split` has the figures of each split by (task, split). Their names become `METRIC`, of
    another split than the task's own `METRIC/SPLIT`; where there are several tasks `METRIC/TASK`
    and `METRIC/TASK-SPLIT`, with `loss` the mean of theirs. `score` is the mean over tasks of their
    own metric, from 0 to 1.
    """
    is_multitask = len(tasks) > 1
    named: dict[str, float] = {}
    for (task, split), figures in by_split.items():
        parts = [task, split] if is_multitask else [split]
        suffix = "-".join(part for part in parts if part)
        for name, value in figures.items():
            named[f"{name}/{suffix}" if suffix else name] = value
    scores, losses = [], []
    for each in tasks:
        own = by_split[each.name, ""]
        # A metric in percent would outweigh the others in the mean.
        scores.append(own[each.metric] / (100 if each.percent else 1))
        if "loss" in own:
            losses.append(own["loss"])
    named["score"] = float(np.mean(scores))
    if is_multitask and len(losses) == len(tasks):
        named["loss"] = float(np.mean(losses))
    return named


def task_evaluator(
    objective: TaskObjective, splits: Sequence[Split], pad_id: int, config: Config, mesh: Mesh
) -> Callable[[Params], dict[str, float]]:
    """Return the function from parameters to held-out figures that the training loop calls.

    See `bertjax.training.batch_source.BatchSource.make_evaluator`.
    """

    def evaluate(params: Params) -> dict[str, float]:
        _, figures = evaluate_splits(config, objective, mesh, params, splits, pad_id)
        return figures

    return evaluate
