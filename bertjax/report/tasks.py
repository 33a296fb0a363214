"""Figures and plots of a fine-tuned run: each task's metrics by their own names and scales."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bertjax.config import FinetuneConfig
from bertjax.report.curves import Metrics
from bertjax.report.figures import Figure, run_figures, slug
from bertjax.report.plots import STEP_PLOTS, Plot
from bertjax.tasks import registry
from bertjax.tasks.metric_table import Scale

STEP_COLUMNS = ("loss", "score", "learning_rate", "grad_norm", "tokens_per_second", "skipped")
"""Metrics that are read from `metrics.jsonl` in addition to those of the tasks."""
TITLES = {
    "f1": "F1",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
THRESHOLD = "_thresh"  # end of the names of SQuAD 2.0's thresholds, which are log odds


class MetricFormat(NamedTuple):
    """The format in which a metric is written."""

    spec: str
    """Format specification of Python."""
    unit: str = ""
    """Unit, written after the metric's name."""
    ticks: str = ""
    """Format of an axis's ticks, in d3's notation."""


SHARE = MetricFormat(".1%", "", ".0%")
PERCENT = MetricFormat(".1f", "%")
NUMBER = MetricFormat(".3f")
POINTS = MetricFormat(".1f")
FORMATS = {
    Scale.SHARE: SHARE,
    Scale.PERCENT: PERCENT,
    Scale.POINTS: POINTS,
    Scale.CORRELATION: NUMBER,
    Scale.ERROR: NUMBER,
}


@dataclass(frozen=True)
class ReportedTask:
    """A task on the page, known from the configuration and the names of held-out metrics."""

    name: str
    kind: str
    metric: str
    """The metric that selects the best checkpoint."""
    chosen: tuple[str, ...] = ()
    """The metrics that `finetune.metric` names, that one first."""

    @property
    def format(self) -> MetricFormat:
        """The format of the metric."""
        return format_of(self.kind, self.metric)

    @property
    def scale(self) -> Scale:
        """The scale of the metric."""
        return registry.scale_of(self.kind, self.metric) or Scale.SHARE


def format_of(kind: str, metric: str) -> MetricFormat:
    """Return the format of a metric of a kind of task.

    Metrics that the kind does not list are in percent for question answering, except losses and
    thresholds, and shares of 1 for other kinds.
    """
    scale = registry.scale_of(kind, metric)
    if scale is not None:
        return FORMATS[scale]
    if metric == "loss" or metric.endswith(THRESHOLD):
        return NUMBER
    return PERCENT if registry.KINDS[kind].in_percent else SHARE


def title(metric: str) -> str:
    """Return the name of a metric in words: `F1 (rare)` for `f1:rare`."""
    base, colon, label = metric.partition(":")
    # Metrics of BLEU have names such as bleu_zh_lc.
    words = TITLES.get(base) or base.replace("_", " ").replace("bleu", "BLEU")
    return f"{words} ({label})" if colon else words


def unit_suffix(metric_format: MetricFormat) -> str:
    """Return the unit in the form in which it follows a name."""
    return f", {metric_format.unit}" if metric_format.unit else ""


def reported_tasks(options: FinetuneConfig, columns: Iterable[str]) -> dict[str, ReportedTask]:
    """Return the run's tasks by name; `columns` are the names of its held-out metrics so far."""
    bases = {column.partition("/")[0] for column in columns}
    tasks: dict[str, ReportedTask] = {}
    for text in options.tasks:
        entry = registry.entry_of(text, options)
        chosen = registry.chosen_for(entry.name, options)
        metric = chosen[0] if chosen else _metric(entry, bases)
        tasks[entry.name] = ReportedTask(entry.name, entry.kind, metric, chosen)
    return tasks


def _metric(entry: registry.Entry, bases: set[str]) -> str:
    candidates = registry.metrics_of(entry)
    # Before the first evaluation no names are known; then the first candidate is assumed.
    return next((metric for metric in candidates if metric in bases), candidates[0])


def read_columns(tasks: Mapping[str, ReportedTask], columns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the metrics to read, with those that the run has not written yet."""
    names = [*STEP_COLUMNS, *columns]
    for task in tasks.values():
        names += [task.metric, f"{task.metric}/{task.name}"]
    return tuple(dict.fromkeys(names))


def task_figures(
    tasks: Mapping[str, ReportedTask], metrics: Metrics, columns: Sequence[str]
) -> list[Figure]:
    """Return the figures at the page's head.

    If there are several tasks, the mean score is first. For each task there are the latest and the
    best value of its metric, and the latest value on each of its other splits. Loss, throughput and
    skipped updates are last.
    """
    figures: list[Figure] = []
    if len(tasks) > 1:
        score_format = _score_format(tasks.values())
        figures += _latest_and_best(metrics, "score", "mean score", score_format, Scale.SHARE)
    for task in tasks.values():
        figures += _figures_of_task(task, tasks, metrics, columns)
    loss_label = "held-out loss, mean" if len(tasks) > 1 else "held-out loss"
    figures.append(Figure("loss", loss_label, metrics.latest("loss"), ".3f"))
    return figures + run_figures(metrics)


def _figures_of_task(
    task: ReportedTask,
    tasks: Mapping[str, ReportedTask],
    metrics: Metrics,
    columns: Sequence[str],
) -> list[Figure]:
    unit = unit_suffix(task.format)
    # If there are several tasks, the task's name follows the metric's name.
    own = f"{task.metric}/{task.name}" if len(tasks) > 1 else task.metric
    label = f"{title(task.metric)} of {task.name}"
    figures = _latest_and_best(metrics, own, label + unit, task.format, task.scale)
    for column in columns:
        base, part = _base_and_part(column, tasks)
        if base == task.metric and column != own and _owner(part, tasks) == task.name:
            split = part.removeprefix(f"{task.name}-")
            name = f"{label}, {split}{unit}"
            figures.append(Figure(slug(column), name, metrics.latest(column), task.format.spec))
    return figures


def _latest_and_best(
    metrics: Metrics, column: str, label: str, metric_format: MetricFormat, scale: Scale
) -> list[Figure]:
    latest, latest_label = metrics.latest(column), label
    if latest is not None:
        latest_label = f"{label}, step {metrics.last_evaluation:,}"
    point = metrics.lowest(column) if scale is Scale.ERROR else metrics.highest(column)
    best, best_label = None, f"best {label}"
    if point is not None:
        best, best_label = point.value, f"best {label}, step {point.step:,}"
    return [
        Figure(slug(column), latest_label, latest, metric_format.spec),
        Figure(f"best-{slug(column)}", best_label, best, metric_format.spec),
    ]


def task_plots(tasks: Mapping[str, ReportedTask], columns: Sequence[str]) -> list[Plot]:
    """Return the plot of loss, then that of each metric, then those that every run has.

    A metric's plot has a line for each task and split.
    """
    has_score = len(tasks) > 1  # a single task's score is its metric
    bases = ["loss"]
    if has_score:
        bases.append("score")
    bases += [task.metric for task in tasks.values()]
    bases += [_base_and_part(column, tasks)[0] for column in columns]
    plots: list[Plot] = []
    for base in dict.fromkeys(bases):
        if base.endswith(THRESHOLD) or (base == "score" and not has_score):
            continue
        plots += _plots_of_metric(base, tasks, columns)
    return [*plots, *STEP_PLOTS]


def _plots_of_metric(
    base: str, tasks: Mapping[str, ReportedTask], columns: Sequence[str]
) -> list[Plot]:
    """Return a metric's plot, or several plots if the tasks have the metric on different scales."""
    own_label = "mean" if len(tasks) > 1 else next(iter(tasks))
    lines: dict[MetricFormat, list[tuple[str, str]]] = {}
    own_columns = [name for name in columns if _base_and_part(name, tasks)[0] == base]
    for column in own_columns or [base]:
        _, part = _base_and_part(column, tasks)
        if base == "score":
            metric_format = _score_format(tasks.values())
        else:
            metric_format = format_of(tasks[_owner(part, tasks)].kind, base)
        lines.setdefault(metric_format, []).append((column, part or own_label))
    plots: list[Plot] = []
    for metric_format, group in lines.items():
        plots.append(_plot(base, metric_format, group, is_first=not plots))
    return plots


def _plot(
    base: str, metric_format: MetricFormat, lines: list[tuple[str, str]], *, is_first: bool
) -> Plot:
    column, label = lines[0]
    words = title(base)
    words = words[0].upper() + words[1:]
    if len(lines) == 1 and column == base:
        lines = []  # a plot of the metric itself
    elif len(lines) == 1:
        words += f" of {label}"
    return Plot(
        base if is_first else f"{base}-{label}",
        words,
        unit=metric_format.unit,
        ticks=metric_format.ticks,
        wide=base == "loss",
        lines=tuple(lines),
    )


def _base_and_part(column: str, tasks: Mapping[str, ReportedTask]) -> tuple[str, str]:
    """Return the metric's name, and the task or split that follows its slash, which may be ''."""
    chosen = [metric for task in tasks.values() for metric in task.chosen]
    # The class of a metric may have slashes in its name; no task or split has one.
    for metric in sorted(chosen, key=len, reverse=True):
        if column == metric or column.startswith(f"{metric}/"):
            return metric, column[len(metric) + 1 :]
    base, _, part = column.partition("/")
    return base, part


def _owner(part: str, tasks: Mapping[str, ReportedTask]) -> str:
    """Return the name of the task that `part`, the text after the slash of a metric, belongs to.

    If there are several tasks, `part` is TASK or TASK-SPLIT; if there is one, `part` is SPLIT or
    empty. One task's name may begin with the name of another, so the longest match is the owner.
    """
    owners = [name for name in tasks if part == name or part.startswith(f"{name}-")]
    return max(owners, key=len, default=next(iter(tasks)))


def _score_format(tasks: Iterable[ReportedTask]) -> MetricFormat:
    """Return the format of the mean over the tasks' metrics.

    The mean is a share, because metrics in percent are divided by 100 before. If a metric is a
    correlation or an error, the mean is written as a plain number.
    """
    return SHARE if all(task.scale.is_share for task in tasks) else NUMBER
