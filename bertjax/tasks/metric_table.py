"""Metrics that `finetune.metric` may name, their scales, and how the option is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bertjax.errors import check, mismatch, nearest

OPTION = "finetune.metric"
MAX_LISTED = 20
"""Maximum number of classes that an error message lists."""


class Scale(Enum):
    """The range of a metric, and which end of it is the better one."""

    SHARE = "0..1, higher is better"
    PERCENT = "in percent, higher is better"
    POINTS = "0..100, higher is better"
    CORRELATION = "-1..1, higher is better"
    ERROR = "from 0, lower is better"

    def score(self, value: float) -> float:
        """Return the value as a score: higher is better, and of 0..100 it becomes a share."""
        if self in (Scale.PERCENT, Scale.POINTS):
            # A metric in 0..100 would outweigh the others in a mean over tasks.
            return value / 100
        return -value if self is Scale.ERROR else value

    def score_name(self, metric: str) -> str:
        """Return the name of the metric's score: `-mse` for the error `mse`."""
        return f"-{metric}" if self is Scale.ERROR else metric

    @property
    def best_score(self) -> float:
        """The highest score on this scale."""
        return 0.0 if self is Scale.ERROR else 1.0

    @property
    def is_share(self) -> bool:
        """True if a score on this scale is a share of 1."""
        return self in (Scale.SHARE, Scale.PERCENT, Scale.POINTS)


@dataclass(frozen=True)
class Metric:
    """A metric that a kind of task has."""

    name: str
    scale: Scale = Scale.SHARE
    of_class: bool = False
    """True for the metric of one class, whose full name is NAME:CLASS, such as `f1:rare`."""

    @property
    def shown(self) -> str:
        """The name as a message shows it."""
        return f"{self.name}:CLASS" if self.of_class else self.name


def metric_named(table: Iterable[Metric], text: str) -> Metric | None:
    """Return the metric of the table that the full name `text` means; None if there is none."""
    # Of the first colon: a class may have colons of its own.
    base, colon, _ = text.partition(":")
    for metric in table:
        if metric.name == base and metric.of_class == bool(colon):
            return metric
    return None


def chosen_metrics(
    options: Sequence[str], task: str, spellings: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the metrics that the entries of `finetune.metric` choose for a task, in their order.

    An entry is METRIC for all tasks, or TASK=METRIC for one. `spellings` maps each way to write a
    task of the run to the task's name: `SST-2` and `sst2` to `sst2`.
    """
    chosen = []
    for text in options:
        prefix, equals, metric = text.partition("=")
        # A class may have = in its name, so only the name of a task is cut off.
        if not equals or prefix not in spellings:
            chosen.append(text)
        elif spellings[prefix] == task:
            chosen.append(metric)
    check(
        len(set(chosen)) == len(chosen),
        where=OPTION,
        found=f"{', '.join(chosen)}, for {task}",
        expected="each metric once",
    )
    return tuple(chosen)


def check_metric(task: str, text: str, table: Sequence[Metric]) -> None:
    """Raise `UserError` unless `text` is the full name of a metric of the table."""
    names = ", ".join(metric.shown for metric in table)
    check(
        metric_named(table, text),
        where=OPTION,
        found=f"{text}, for {task}",
        expected=f"one of {names}" if names else "none",
    )


def check_class(task: str, text: str, classes: Sequence[str]) -> None:
    """Raise `UserError` unless the class of the metric `text`, if it has one, is in `classes`."""
    _, colon, label = text.partition(":")
    if not colon or label in classes:
        return
    listed = ", ".join(classes[:MAX_LISTED])
    if len(classes) > MAX_LISTED:
        listed += f", ... ({len(classes)} in all)"
    raise mismatch(
        where=OPTION,
        found=f"{text}, for {task}",
        expected=f"a class of its training set: {listed}{nearest(label, classes)}",
    )
