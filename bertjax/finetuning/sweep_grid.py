"""A sweep's cells, and the table of what they gave: the settings tried, each with several seeds."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from bertjax.errors import check


@dataclass(frozen=True)
class Setting:
    """What a sweep chooses between."""

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
        """The name of its run's folder, such as
        `batch_size-16,peak_learning_rate-5e-05,epochs-3,seed-0`.
        """
        values = [(field.name, getattr(self.setting, field.name)) for field in fields(self.setting)]
        return ",".join(
            f"{name}-{_shortest(value)}" for name, value in [*values, ("seed", self.seed)]
        )


@dataclass(frozen=True)
class Grid:
    """Every combination of these is a cell of the sweep."""

    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    """Peaks of the learning rate."""
    epochs: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            values = getattr(self, name)
            each = all(
                (value >= 0 if name == "seeds" else value > 0) and math.isfinite(value)
                for value in values
            )
            good = bool(values) and each and len(set(values)) == len(values)
            expected = (
                f"one or more numbers {'from 0' if name == 'seeds' else 'above 0'}, each once"
            )
            check(good, where=f"grid.{name}", found=values, expected=expected)


PAPER_GRID = Grid(batch_sizes=(16, 32), learning_rates=(5e-5, 3e-5, 2e-5), epochs=(2, 3, 4))
"""The grid of arXiv 1810.04805, appendix A.3, with one seed."""


@dataclass(frozen=True)
class Result:
    """What a cell gave."""

    cell: Cell
    metric: float | None
    """The task's metric at the run's end; more is better. None: training ended with an error."""


@dataclass(frozen=True)
class Row:
    """A setting's results over its seeds; figures are None where there are too few runs for them."""

    setting: Setting
    mean: float | None
    deviation: float | None
    """Sample standard deviation, of two runs or more."""
    best: float | None
    runs: int
    """Cells that ended, those with an error too."""
    failed: int
    """Of them, those no better than the baseline."""
    chosen: bool = False
    """Has the best mean; the first one that has."""


def cells(grid: Grid) -> list[Cell]:
    """All runs of a sweep, in the order to run them in: every setting with the first seed, then
    with the next.
    """
    settings = list(
        itertools.starmap(
            Setting, itertools.product(grid.batch_sizes, grid.learning_rates, grid.epochs)
        )
    )
    return [Cell(setting, seed) for seed in grid.seeds for setting in settings]


def summary(results: Iterable[Result], *, baseline: float) -> list[Row]:
    """A row for each setting, in the order of the first results of each.

    A run failed where it ended with an error, its metric is not finite, or its metric is at most
    `baseline`, that of the majority class or of a constant (section 3 of arXiv 2006.04884; the
    degenerate runs of arXiv 2006.05987). Failed runs that have a finite metric count in the mean,
    the deviation and the best; the others cannot.
    """
    metrics: dict[Setting, list[float | None]] = {}
    for result in results:
        metrics.setdefault(result.cell.setting, []).append(result.metric)
    rows = [_row(setting, found, baseline) for setting, found in metrics.items()]
    best = max(rows, key=lambda row: -math.inf if row.mean is None else row.mean, default=None)
    return [replace(row, chosen=row is best and row.mean is not None) for row in rows]


def _row(setting: Setting, metrics: Sequence[float | None], baseline: float) -> Row:
    found = [metric for metric in metrics if metric is not None and math.isfinite(metric)]
    return Row(
        setting,
        mean=statistics.fmean(found) if found else None,
        deviation=statistics.stdev(found) if len(found) > 1 else None,
        best=max(found, default=None),
        runs=len(metrics),
        failed=len(metrics) - sum(metric > baseline for metric in found),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal, aligned, figures in percent; `*` marks the best mean."""
    head = [
        "batch size",
        "learning rate",
        "epochs",
        "mean",
        "deviation",
        "best",
        "runs",
        "failed",
        "",
    ]
    lines = [head, *([*_words(row), "*" if row.chosen else ""] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = (
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)


def _words(row: Row) -> list[str]:
    setting, figures = row.setting, (row.mean, row.deviation, row.best)
    tried = [
        _shortest(value)
        for value in (setting.batch_size, setting.peak_learning_rate, setting.epochs)
    ]
    return [
        *tried,
        *("-" if x is None else f"{x:.1%}" for x in figures),
        str(row.runs),
        str(row.failed),
    ]


def _shortest(value: float) -> str:
    """The number in the fewest digits that tell it from any other: 3 of 3.0, 5e-05 of 5e-5."""
    return repr(value).removesuffix(".0")
