"""The cells of a sweep, and the table of their results: settings, each with several seeds."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from bertjax.errors import check
from bertjax.finetuning.baseline import is_failed
from bertjax.number_text import number_text

HEADER = (
    "batch size",
    "learning rate",
    "epochs",
    "mean",
    "deviation",
    "best",
    "runs",
    "failed",
    "",
)


@dataclass(frozen=True)
class Setting:
    """The values that a sweep chooses between."""

    batch_size: int
    peak_learning_rate: float
    epochs: float


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    setting: Setting
    seed: int

    @property
    def folder(self) -> str:
        """The name of the run's folder.

        It is such as `batch_size-16,peak_learning_rate-5e-05,epochs-3,seed-0`.
        """
        parts = []
        # Every field of the setting is in the name, so that no two cells share a folder.
        for field in fields(self.setting):
            parts.append(f"{field.name}-{_shortest(getattr(self.setting, field.name))}")
        return ",".join([*parts, f"seed-{self.seed}"])


@dataclass(frozen=True)
class Grid:
    """The values of a sweep; every combination of them is a cell."""

    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    """Peaks of the learning rate."""
    epochs: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        _check_values("batch_sizes", self.batch_sizes)
        _check_values("learning_rates", self.learning_rates)
        _check_values("epochs", self.epochs)
        _check_values("seeds", self.seeds, may_be_zero=True)


def _check_values(name: str, values: Sequence[float], *, may_be_zero: bool = False) -> None:
    """Raise `UserError` unless there are values, finite and not negative, each once."""
    # Each once: equal values would be two cells with one folder.
    good = len(values) > 0 and len(set(values)) == len(values)
    for value in values:
        is_allowed = value >= 0 if may_be_zero else value > 0
        good = good and is_allowed and math.isfinite(value)
    range_ = "from 0" if may_be_zero else "above 0"
    check(
        good,
        where=f"grid.{name}",
        found=values,
        expected=f"one or more numbers {range_}, each once",
    )


PAPER_GRID = Grid(batch_sizes=(16, 32), learning_rates=(5e-5, 3e-5, 2e-5), epochs=(2, 3, 4))
"""The grid of arXiv 1810.04805, appendix A.3, with one seed."""


@dataclass(frozen=True)
class Result:
    """The result of a cell."""

    cell: Cell
    metric: float | None
    """Score of the selected checkpoint; higher is better. None: training ended with an error."""
    is_constant: bool = False
    """True if the figures show one answer for all, although the score is above the baseline."""


@dataclass(frozen=True)
class SettingSummary:
    """Statistics of a setting over its seeds; None where there are too few runs for one."""

    setting: Setting
    mean: float | None
    deviation: float | None
    """Sample standard deviation, of two runs or more."""
    best: float | None
    runs: int
    """Cells that ended, those with an error included."""
    failed: int
    """Cells among them that are no better than the baseline, or have one answer for all."""
    chosen: bool = False
    """True for the first setting with the best mean."""


def cells(grid: Grid) -> list[Cell]:
    """Return all runs of a sweep in order: all settings with the first seed, then with the next."""
    # By seed first: a sweep that is stopped early has then compared more settings.
    values = itertools.product(grid.batch_sizes, grid.learning_rates, grid.epochs)
    settings = list(itertools.starmap(Setting, values))
    return [Cell(setting, seed) for seed in grid.seeds for setting in settings]


def summarize(results: Iterable[Result], *, baseline: float | None) -> list[SettingSummary]:
    """Return a summary for each setting, in the order of the first results of each.

    `baseline` is the score that a run must exceed, if there is one: see
    `bertjax.finetuning.baseline.is_failed`. Mean, deviation and best include all runs with a finite
    metric, even failed ones.
    """
    by_setting: dict[Setting, list[Result]] = {}
    for result in results:
        by_setting.setdefault(result.cell.setting, []).append(result)
    summaries = [_summary(setting, own, baseline) for setting, own in by_setting.items()]
    best = max(summaries, key=_mean_or_least, default=None)
    marked = []
    for summary in summaries:
        is_chosen = summary is best and summary.mean is not None
        marked.append(replace(summary, chosen=is_chosen))
    return marked


def _mean_or_least(summary: SettingSummary) -> float:
    return -math.inf if summary.mean is None else summary.mean


def _summary(setting: Setting, results: Sequence[Result], baseline: float | None) -> SettingSummary:
    metrics = [result.metric for result in results]
    finite = [metric for metric in metrics if metric is not None and math.isfinite(metric)]
    return SettingSummary(
        setting,
        mean=statistics.fmean(finite) if finite else None,
        deviation=statistics.stdev(finite) if len(finite) > 1 else None,
        best=max(finite, default=None),
        runs=len(metrics),
        failed=sum(each.is_constant or is_failed(each.metric, baseline) for each in results),
    )


def table(summaries: Sequence[SettingSummary], *, in_percent: bool = True) -> str:
    """Return the summaries for a terminal, aligned; `*` marks the best mean.

    Figures are in percent or, for scores that are no shares of 1, plain numbers.
    """
    lines = [HEADER, *(_table_line(summary, in_percent) for summary in summaries)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for line in lines:
        words = [word.rjust(width) for word, width in zip(line, widths, strict=True)]
        aligned.append("  ".join(words).rstrip())
    return "\n".join(aligned)


def _table_line(summary: SettingSummary, in_percent: bool) -> tuple[str, ...]:
    setting = summary.setting
    return (
        _shortest(setting.batch_size),
        _shortest(setting.peak_learning_rate),
        _shortest(setting.epochs),
        _shown(summary.mean, in_percent),
        _shown(summary.deviation, in_percent),
        _shown(summary.best, in_percent),
        str(summary.runs),
        str(summary.failed),
        "*" if summary.chosen else "",
    )


def _shown(figure: float | None, in_percent: bool) -> str:
    if figure is None:
        return "-"
    return number_text(figure, ".1%" if in_percent else ".4f")


def _shortest(value: float) -> str:
    """Return a number in the fewest digits that tell it from any other: 3 for 3.0, 5e-05."""
    return repr(value).removesuffix(".0")
