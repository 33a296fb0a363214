"""Predictions and figures of tasks: every item once, also on several devices and hosts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.finetuning.batches import eval_batches, item_lengths
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.functional import Params
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch, process_rows
from bertjax.tasks.task import EncodedExamples, Task


@dataclass(frozen=True)
class Split:
    """Examples of one task that are predicted together."""

    task: str
    """The task's name."""
    name: str
    """What its figures are told apart by: empty for the task's own validation set, `mismatched` for
    MNLI's other.
    """
    examples: Sequence[Any]
    rows: EncodedExamples


@dataclass(frozen=True)
class Evaluated:
    """What came of a split."""

    predictions: list[Any]
    figures: dict[str, float]
    """With `loss`, in nats; empty where the examples have no labels."""


Assessed = list[tuple[Task, Split, Evaluated]]


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
    """Predict a split, and score it where it is `labelled`; of several processes all call this and
    get the same.
    """
    task = objective.by_name[split.task]
    size = config.train.batch_size
    step = _eval_step(objective, mesh, task.name, labelled)
    found: list[Any] = [None] * split.rows.items
    lengths = item_lengths(split.rows, config.finetune.max_seq_length)
    totals: dict[str, float] = {}
    for items, batch in eval_batches(
        split.rows,
        batch_size=size,
        length_buckets=config.row_lengths,
        max_seq_length=config.finetune.max_seq_length,
        pad_id=pad_id,
        rows_of_process=process_rows(mesh, size),
    ):
        sums, outputs = jax.device_get(step(params, global_batch(mesh, batch, size)))
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        for item, output in zip(items, outputs, strict=True):
            if item >= 0:
                found[item] = output[: lengths[item]] if task.per_token else output
    predictions = task.predict(found, split.rows, split.examples)
    if not labelled:
        return Evaluated(predictions, {})
    figures = dict(task.figures(predictions, split.examples))
    if totals.get("count"):
        figures["loss"] = totals["loss"] / totals["count"]
    return Evaluated(predictions, figures)


@lru_cache(maxsize=32)  # more than GLUE has tasks
def _eval_step(
    objective: TaskObjective, mesh: Mesh, name: str, labelled: bool
) -> Callable[[Params, Any], Any]:
    """(params, batch) to (sums, what prediction needs), which every process gets whole."""
    task, layout = objective.by_name[name], rules.MeshLayout(mesh)

    def step(params: Params, batch: Any) -> tuple[dict[str, Any], Any]:
        batch = objective.prepare(batch)
        if task.generates and not labelled:
            return {}, task.generate(objective.model, params, batch, layout=layout)
        scores = task.logits(objective.model, params, batch, key=None, layout=layout)
        sums = task.sums(scores, batch) if labelled else {}
        if task.generates:
            return sums, task.generate(objective.model, params, batch, layout=layout)
        return sums, task.outputs(scores)

    layouts = rules.tree_shardings(mesh, objective.logical_axes())
    return jax.jit(
        step,
        in_shardings=(layouts, rules.batch_sharding(mesh)),
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
    """Labelled splits, what came of each, and all figures by name; of several processes all get the
    same.
    """
    found = [
        (
            objective.by_name[split.task],
            split,
            evaluate_split(config, objective, mesh, params, split, pad_id, labelled=True),
        )
        for split in splits
    ]
    figures = {(split.task, split.name): evaluated.figures for _, split, evaluated in found}
    return found, named_figures(figures, objective.tasks)


def named_figures(
    evaluated: Mapping[tuple[str, str], dict[str, float]], tasks: Sequence[Task]
) -> dict[str, float]:
    """All splits' figures by one name each, and `score`: the mean over tasks of their own metric,
    in 0..1.

    `METRIC`; of another split than the task's own `METRIC/SPLIT`; where there are several tasks
    `METRIC/TASK` and `METRIC/TASK-SPLIT`, with `loss` their mean.
    """
    several = len(tasks) > 1
    found: dict[str, float] = {}
    for (task, split), figures in evaluated.items():
        suffix = "-".join(part for part in (task if several else "", split) if part)
        found |= {f"{name}/{suffix}" if suffix else name: value for name, value in figures.items()}
    own = [evaluated[task.name, ""] for task in tasks]
    shares = [
        figures[task.metric] / (100 if task.percent else 1)
        for task, figures in zip(tasks, own, strict=True)
    ]
    found["score"] = float(np.mean(shares))
    if several and all("loss" in figures for figures in own):
        found["loss"] = float(np.mean([figures["loss"] for figures in own]))
    return found


def examiner(
    objective: TaskObjective, splits: Sequence[Split], pad_id: int, config: Config, mesh: Mesh
) -> Callable[[Params], dict[str, float]]:
    """What the training loop asks for held-out figures
    (`bertjax.training.batch_source.BatchSource.make_evaluator`).
    """

    return lambda params: evaluate_splits(config, objective, mesh, params, splits, pad_id)[1]
