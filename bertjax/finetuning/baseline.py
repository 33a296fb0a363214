"""Comparison of a run's score with that of one answer for all examples."""

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from bertjax.finetuning.evaluate import figure_name
from bertjax.number_text import number_text
from bertjax.tasks.registry import kind_of
from bertjax.tasks.task import Task

log = logging.getLogger("bertjax")


def baseline_of(tasks: Sequence[Task], examples: Mapping[str, Sequence[Any]]) -> float | None:
    """Return the score of the majority-class baseline: the mean over tasks of their metric.

    `examples` are the validation examples by task. The result is None if, in one of the tasks, no
    model can be better than one answer for all examples, as where all of them have the same class.
    """
    scores = []
    for task in tasks:
        score = kind_of(task).majority_baseline(task, examples[task.name])
        if score is None or score >= task.metric_scale.best_score:
            return None
        scores.append(score)
    return fmean(scores)


def is_constant(
    tasks: Sequence[Task], examples: Mapping[str, Sequence[Any]], figures: Mapping[str, float]
) -> bool:
    """Return whether figures show one answer for all examples of each task (`Kind.is_constant`).

    `figures` are those of all validation sets, by their names (`evaluate.named_figures`).
    """
    for task in tasks:
        own = {}
        for metric in (task.metric, "accuracy"):
            name = figure_name(metric, task.name, "", len(tasks) > 1)
            if name in figures:
                own[metric] = figures[name]
        if not kind_of(task).is_constant(task, own, examples[task.name]):
            return False
    return True


def is_failed(score: float | None, baseline: float | None) -> bool:
    """Return whether a run has failed: its score is not finite, or not above the baseline.

    This is the rule of section 3 of arXiv 2006.04884, and the degenerate runs of arXiv 2006.05987.
    `score` is None if it was not finite, or training ended with an error. `baseline` is None if
    there is none to compare with.
    """
    if score is None or not math.isfinite(score):
        return True
    return baseline is not None and score <= baseline


def warn_of_baseline(
    baseline: float | None, score: float | None, *, constant: bool = False
) -> None:
    """Log a warning if a run has failed (`is_failed`, `is_constant`), as a sweep counts it."""
    if not is_failed(score, baseline):
        if constant:
            log.warning(
                "the score is %s, and one answer for all validation examples gets it, too:"
                " the run has failed, as a sweep would count it",
                number_text(score or 0.0, ".4f"),
            )
        return
    shown = "not finite" if score is None else number_text(score, ".4f")
    if baseline is None:
        log.warning("the score is %s: the run has failed, as a sweep would count it", shown)
        return
    log.warning(
        "the score is %s, not above %s, which one answer for all validation examples gets:"
        " the run has failed, as a sweep would count it",
        shown,
        number_text(baseline, ".4f"),
    )
