import dataclasses
import math
import statistics

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.finetuning.sweep_grid import (
    PAPER_GRID,
    Cell,
    Grid,
    Result,
    Setting,
    cells,
    summarize,
    table,
)

pytestmark = pytest.mark.quick
FIRST, SECOND, THIRD = (Setting(16, rate, 3) for rate in (5e-5, 3e-5, 2e-5))


def results(setting, *metrics):
    return [Result(Cell(setting, seed), metric) for seed, metric in enumerate(metrics)]


def test_the_papers_grid_is_eighteen_settings():
    found = {
        (cell.setting.batch_size, cell.setting.peak_learning_rate, cell.setting.epochs)
        for cell in cells(PAPER_GRID)
    }
    assert found == {
        (size, rate, epochs)
        for size in (16, 32)
        for rate in (5e-5, 3e-5, 2e-5)
        for epochs in (2, 3, 4)
    }
    assert len(cells(PAPER_GRID)) == 18


def test_every_setting_is_tried_with_one_seed_before_the_next():
    found = cells(dataclasses.replace(PAPER_GRID, seeds=(7, 3)))
    assert [cell.seed for cell in found] == [7] * 18 + [3] * 18
    assert [cell.setting for cell in found[:18]] == [cell.setting for cell in found[18:]]


@pytest.mark.parametrize(
    "cell,folder",
    [
        (Cell(Setting(16, 5e-5, 3), 0), "batch_size-16,peak_learning_rate-5e-05,epochs-3,seed-0"),
        (
            Cell(Setting(32, 0.001, 3.0), 12),
            "batch_size-32,peak_learning_rate-0.001,epochs-3,seed-12",
        ),
        (Cell(Setting(8, 1.0, 2.5), 1), "batch_size-8,peak_learning_rate-1,epochs-2.5,seed-1"),
    ],
)
def test_a_cells_folder_names_its_settings(cell, folder):
    assert cell.folder == folder


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=2, unique=True))
@example([1.2345678, 1.2345679])
def test_other_cells_have_other_folders(rates):
    grid = Grid((16,), tuple(rates), tuple(rates), (0, 1))
    assert len({cell.folder for cell in cells(grid)}) == 8


@pytest.mark.parametrize(
    "change,message",
    [
        (
            {"batch_sizes": ()},
            "grid.batch_sizes: found (), expected one or more numbers above 0, each once",
        ),
        (
            {"learning_rates": (5e-5, 0.0)},
            "grid.learning_rates: found (5e-05, 0.0), expected one or more numbers above 0",
        ),
        ({"learning_rates": (math.inf,)}, "grid.learning_rates: found (inf,), expected"),
        (
            {"epochs": (3, 3.0)},
            "grid.epochs: found (3, 3.0), expected one or more numbers above 0, each once",
        ),
        (
            {"seeds": (0, -1)},
            "grid.seeds: found (0, -1), expected one or more numbers from 0, each once",
        ),
    ],
)
def test_a_grid_of_no_sense_is_refused(change, message):
    with pytest.raises(UserError) as error:
        dataclasses.replace(PAPER_GRID, **change)
    assert message in str(error.value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_figures_of_a_setting_are_those_of_its_seeds(metrics):
    (row,) = summarize(results(FIRST, *metrics), baseline=0.5)
    assert row.mean == pytest.approx(sum(metrics) / len(metrics))
    assert row.best == max(metrics)
    assert (row.runs, row.chosen) == (len(metrics), True)
    assert row.failed == sum(metric <= 0.5 for metric in metrics)
    if len(metrics) == 1:
        assert row.deviation is None
    else:
        squares = sum((metric - statistics.fmean(metrics)) ** 2 for metric in metrics)
        assert row.deviation == pytest.approx(math.sqrt(squares / (len(metrics) - 1)))


def test_a_run_that_ended_with_an_error_or_no_number_failed_and_has_no_figure():
    (row,) = summarize(results(FIRST, 0.9, None, math.nan, 0.7, 0.6), baseline=0.6)
    assert (row.runs, row.failed, row.mean, row.best) == (5, 3, pytest.approx(2.2 / 3), 0.9)
    (row,) = summarize(results(FIRST, 1.0, 0.2, math.nan), baseline=None)
    assert (row.runs, row.failed) == (3, 1)
    (row,) = summarize(results(FIRST, None), baseline=0.6)
    assert (row.runs, row.failed, row.mean, row.deviation, row.best, row.chosen) == (
        1,
        1,
        None,
        None,
        None,
        False,
    )


def test_the_best_mean_is_marked_and_not_the_best_run():
    rows = summarize(
        [*results(FIRST, None), *results(SECOND, 0.99, 0.1), *results(THIRD, 0.7, 0.7)],
        baseline=0.0,
    )
    assert [(row.setting, row.chosen) for row in rows] == [
        (FIRST, False),
        (SECOND, False),
        (THIRD, True),
    ]


@pytest.mark.parametrize("metric", [0.0, -0.3])
def test_of_like_means_the_first_is_marked_also_at_and_below_zero(metric):
    found = [
        *results(Setting(8, 5e-5, 3), None),
        *results(FIRST, -0.5),
        *results(SECOND, metric),
        *results(THIRD, metric),
    ]
    assert [row.chosen for row in summarize(found, baseline=0.0)] == [False, False, True, False]


def test_no_results_are_no_rows():
    assert summarize([], baseline=0.0) == []
    assert len(table([]).splitlines()) == 1


def test_the_table_is_aligned_and_in_percent():
    found = [
        *results(FIRST, 0.88449, 0.5),
        *results(Setting(128, 1e-4, 2.5), 1.0),
        *results(THIRD, None),
    ]
    assert table(summarize(found, baseline=0.5)).splitlines() == [
        "batch size  learning rate  epochs    mean  deviation    best  runs  failed",
        "        16          5e-05       3   69.2%      27.2%   88.4%     2       1",
        "       128         0.0001     2.5  100.0%          -  100.0%     1       0  *",
        "        16          2e-05       3       -          -       -     1       1",
    ]


def test_scores_that_are_no_shares_are_plain_numbers():
    found = table(summarize(results(FIRST, -1.13744, -1.0), baseline=-2.0), in_percent=False)
    assert found.splitlines()[1].split()[3:6] == ["-1.0687", "0.0972", "-1.0000"]
