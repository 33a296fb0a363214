"""What the page of a fine-tuned run shows of its metrics: each task's figures by their own names
and scales.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertjax.config import FinetuneConfig
from bertjax.report.curves import Metrics
from bertjax.report.plots import STEP_PLOTS, Figure, Plot, slug
from bertjax.tasks import registry as kinds

STEP_COLUMNS = ("loss", "score", "learning_rate", "grad_norm", "tokens_per_second", "skipped")
"""What is read of `metrics.jsonl` beside the tasks' own figures."""
TITLES = {
    "f1": "F1",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "bleu": "BLEU",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
CORRELATIONS = ("matthews_correlation", "pearson", "spearman")
THRESHOLD = "_thresh"  # ends the names of SQuAD 2.0's thresholds, which are log odds


class Scale(NamedTuple):
    """How a figure is written: a Python format, the unit said beside its name, and a d3 format for
    axes.
    """

    form: str
    unit: str = ""
    ticks: str = ""


SHARE, PERCENT, NUMBER, POINTS = (
    Scale(".1%", "", ".0%"),
    Scale(".1f", "%"),
    Scale(".3f"),
    Scale(".1f"),
)


@dataclass(frozen=True)
class ReportedTask:
    """A task as the page knows it, by what its configuration says and the evaluations' names."""

    name: str
    kind: str
    metric: str
    """The figure that the best checkpoint is chosen by."""


def format_of(kind: str, figure: str) -> Scale:
    """The scale of a kind of task's figure: spans' are in percent, BLEU is in 0..100, the others
    are shares of 1.
    """
    if figure == "loss" or figure in CORRELATIONS or figure.endswith(THRESHOLD):
        return NUMBER
    if figure == "bleu":
        return POINTS
    return PERCENT if kinds.KINDS[kind].in_percent else SHARE


def title(figure: str) -> str:
    """The name of a figure in words."""
    return TITLES.get(figure) or figure.replace("_", " ")


def unit_of(scale: Scale) -> str:
    """The unit, to stand behind a name."""
    return f", {scale.unit}" if scale.unit else ""


def reported_tasks(told: FinetuneConfig, columns: Iterable[str]) -> dict[str, ReportedTask]:
    """The run's tasks by name; `columns` are the names of its held-out figures so far."""
    bases = {column.partition("/")[0] for column in columns}
    entries = [kinds.entry_of(text, told) for text in told.tasks]
    return {entry.name: ReportedTask(entry.name, entry.kind, _metric(entry, bases)) for entry in entries}


def _metric(entry: kinds.Entry, bases: set[str]) -> str:
    found = kinds.metrics_of(entry)
    return next((metric for metric in found if metric in bases), found[0])


def read_columns(tasks: Mapping[str, ReportedTask], columns: Iterable[str]) -> tuple[str, ...]:
    """What is to be read of the run's rows, whether it is there yet or not."""
    own = [name for task in tasks.values() for name in (task.metric, f"{task.metric}/{task.name}")]
    return tuple(dict.fromkeys([*STEP_COLUMNS, *columns, *own]))


def figures(tasks: Mapping[str, ReportedTask], metrics: Metrics, columns: Sequence[str]) -> list[Figure]:
    """The page's head: of each task the metric's latest and best value, other splits' latest; loss,
    rate, skips.
    """
    several = len(tasks) > 1
    found: list[Figure] = []
    if several:
        found += _latest_and_best(metrics, "score", "mean score", _score_scale(tasks.values()))
    for task in tasks.values():
        scale = format_of(task.kind, task.metric)
        own = f"{task.metric}/{task.name}" if several else task.metric
        label = f"{title(task.metric)} of {task.name}"
        found += _latest_and_best(metrics, own, label + unit_of(scale), scale)
        for column in columns:
            base, _, part = column.partition("/")
            if base == task.metric and column != own and _owner(part, tasks) == task.name:
                split = part.removeprefix(f"{task.name}-")
                found.append(
                    (
                        slug(column),
                        f"{label}, {split}{unit_of(scale)}",
                        metrics.latest(column),
                        scale.form,
                    )
                )
    rates = metrics.training("tokens_per_second").known().values
    return [
        *found,
        ("loss", "held-out loss" + (", mean" if several else ""), metrics.latest("loss"), ".3f"),
        (
            "tokens-per-second",
            "tokens a second, median",
            float(np.median(rates)) if len(rates) else None,
            ",.0f",
        ),
        ("skipped", "skipped updates", metrics.skipped, ",d"),
    ]


def plots(tasks: Mapping[str, ReportedTask], columns: Sequence[str]) -> list[Plot]:
    """Loss, then each figure that `columns` name with a line for every task and split, then the
    steps' own plots.
    """
    several = len(tasks) > 1
    first = [
        "loss",
        *(["score"] if several else []),
        *dict.fromkeys(task.metric for task in tasks.values()),
    ]
    bases = dict.fromkeys([*first, *(column.partition("/")[0] for column in columns)])
    shown = [
        base for base in bases if not base.endswith(THRESHOLD) and (several or base != "score")
    ]
    return [*(plot for base in shown for plot in _plots(base, tasks, columns)), *STEP_PLOTS]


def _plots(base: str, tasks: Mapping[str, ReportedTask], columns: Sequence[str]) -> list[Plot]:
    """A figure's plot, or several where tasks have it on different scales."""
    whole = "mean" if len(tasks) > 1 else next(iter(tasks))
    groups: dict[Scale, list[tuple[str, str]]] = {}
    for column in [one for one in columns if one.partition("/")[0] == base] or [base]:
        part = column.partition("/")[2]
        kind = tasks[_owner(part, tasks)].kind
        scale = _score_scale(tasks.values()) if base == "score" else format_of(kind, base)
        groups.setdefault(scale, []).append((column, part or whole))
    return [
        _plot(base, scale, lines, first=number == 0)
        for number, (scale, lines) in enumerate(groups.items())
    ]


def _plot(base: str, scale: Scale, lines: list[tuple[str, str]], *, first: bool) -> Plot:
    (column, label), alone = lines[0], len(lines) == 1
    name = title(base)
    return Plot(
        base if first else f"{base}-{label}",
        name[0].upper() + name[1:] + (f" of {label}" if alone and column != base else ""),
        unit=scale.unit,
        ticks=scale.ticks,
        wide=base == "loss",
        lines=() if alone and column == base else tuple(lines),
    )


def _owner(part: str, tasks: Mapping[str, ReportedTask]) -> str:
    """The task whose figure has `part` behind its slash: TASK or TASK-SPLIT of several, SPLIT of
    the only one.
    """
    owners = [name for name in tasks if part == name or part.startswith(f"{name}-")]
    return max(owners, key=len, default=next(iter(tasks)))


def _score_scale(tasks: Iterable[ReportedTask]) -> Scale:
    """A mean of shares is one, wherever percents were made shares first; one with correlations is a
    number.
    """
    return NUMBER if any(task.metric in CORRELATIONS for task in tasks) else SHARE


def _latest_and_best(metrics: Metrics, column: str, label: str, scale: Scale) -> list[Figure]:
    latest, best = metrics.latest(column), metrics.highest(column)
    at = f", step {best[0]:,}" if best else ""
    when = f", step {metrics.last_evaluation:,}" if latest is not None else ""
    return [
        (slug(column), f"{label}{when}", latest, scale.form),
        (f"best-{slug(column)}", f"best {label}{at}", best[1] if best else None, scale.form),
    ]
