"""A sweep: cells run once, one that fails counted, one that is stopped gone on with, the best model
kept.
"""

import dataclasses
import logging
import signal
import statistics
from pathlib import Path

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.finetuning.load import load_finetuned
from bertjax.finetuning.sweep import sweep
from bertjax.finetuning.sweep_grid import Grid
from bertjax.storage import LockError, folder_lock
from tests.tasks.tiny import (
    TOKENIZER,
    config_of,
    has_good,
    read_json_strictly,
    save_start,
    write_splits,
)

GRID = Grid(batch_sizes=(16,), learning_rates=(6e-3, 1e30), epochs=(6.0,), seeds=(0, 1))
GOOD, BAD = ([f"batch_size-16,peak_learning_rate-{rate},epochs-6,seed-{seed}" for seed in (0, 1)] for rate in ("0.006", "1e+30"))  # fmt: skip


def checkpoints_of(run):
    return {
        p.name: [c for c in (p / "checkpoints").glob("*") if c.name.isdigit()]
        for p in (run / "cells").iterdir()
    }


def content_of(folder):
    return {
        p: p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and "checkpoints" not in p.parts
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    texts = write_splits(folder / "texts", has_good)
    options = {"evaluations_per_epoch": 0.5}
    return config_of(
        f"good:classification={texts}",
        init_from=str(save_start(folder / "start")),
        finetune=options,
    )


def test_a_cell_that_another_process_runs_ends_the_sweep_and_is_not_touched(config, tmp_path):
    run = epath.Path(tmp_path) / "run"
    with folder_lock(run / "cells" / GOOD[0], "finetune"):
        before = content_of(run)
        with pytest.raises(LockError, match=rf"{GOOD[0]}: found bertjax finetune .process \d+ on"):
            sweep(config, GRID, run, TOKENIZER, ("pooler",))
        assert content_of(run) == before
    assert not run.exists()


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
    """(folder, result) of a sweep that a signal stopped in its third cell, its lines, and its
    files then.
    """
    reached, output = [], []

    def stop(what, done, total):
        reached.append(done)
        if done == 20 and reached.count(20) == 2:
            signal.raise_signal(signal.SIGTERM)

    run = epath.Path(tmp_path_factory.mktemp("swept")) / "run"
    found = sweep(config, GRID, run, TOKENIZER, ("pooler",), progress=stop, on_run=output.append)
    return run, found, output, content_of(run / "cells"), read_json_strictly(run / "sweep.json")


@pytest.fixture(scope="module")
def swept(config, stopped):
    return sweep(config, GRID, stopped[0], TOKENIZER, ("pooler",))


def test_a_signal_ends_the_sweep_with_what_it_has(stopped):
    run, found, output, _, content = stopped
    assert found.stopped
    assert [result.cell.folder for result in found.results] == [GOOD[0], BAD[0]]
    assert found.best == run / "cells" / GOOD[0]
    assert [line.partition(":")[0] for line in output] == ["1 of 4", "2 of 4"]
    assert output[1].endswith("failed")
    assert len(content["cells"]) == 2


def test_the_same_call_goes_on_and_runs_no_finished_cell_again(stopped, swept):
    run, _, _, before, _ = stopped
    assert not swept.stopped
    assert [result.cell.folder for result in swept.results] == [GOOD[0], BAD[0], GOOD[1], BAD[1]]
    after = content_of(run / "cells")
    for path, content in before.items():
        if path.parts[-2] in (GOOD[0], BAD[0]):
            assert after[path] == content, path


def test_a_finished_sweep_trains_nothing_more(config, stopped, swept):
    before, steps = content_of(stopped[0] / "cells"), []
    again = sweep(
        config, GRID, stopped[0], TOKENIZER, ("pooler",), progress=lambda *a: steps.append(a)
    )
    assert steps == []
    assert (again.results, again.table) == (swept.results, swept.table)
    assert content_of(stopped[0] / "cells") == before


def test_a_cell_whose_loss_is_not_finite_is_a_failed_run(stopped, swept):
    run = stopped[0]
    assert [result.metric is None for result in swept.results] == [False, True, False, True]
    for name in BAD:
        assert (
            "loss or gradient not finite in 5 updates in a row"
            in read_json_strictly(run / "cells" / name / "failed.json")["error"]
        )
    assert not any((run / "cells" / name / "failed.json").exists() for name in GOOD)


def test_the_figures_are_the_statistics_of_the_cells(stopped, swept):
    run = stopped[0]
    content = read_json_strictly(run / "sweep.json")
    scores = [
        read_json_strictly(run / "cells" / name / "result.json")["figures"]["score"]
        for name in GOOD
    ]
    assert [cell["metric"] for cell in content["cells"]] == [scores[0], None, scores[1], None]
    assert [cell["seed"] for cell in content["cells"]] == [0, 0, 1, 1]
    good, bad = content["settings"]
    assert good["setting"] == {"batch_size": 16, "peak_learning_rate": 6e-3, "epochs": 6.0}
    assert good["mean"] == pytest.approx(statistics.mean(scores))
    assert good["deviation"] == pytest.approx(statistics.stdev(scores))
    assert good["best"] == max(scores)
    assert good["chosen"]
    least = read_json_strictly(run / "sweep.json")["baseline"]
    assert (good["runs"], good["failed"]) == (2, sum(score <= least for score in scores))
    assert (bad["mean"], bad["runs"], bad["failed"], bad["chosen"]) == (None, 2, 2, False)
    labels = [
        line.split("\t")[1]
        for line in (epath.Path(config_place(run)) / "dev.tsv").read_text().splitlines()[1:]
    ]
    assert least == max(labels.count("yes"), labels.count("no")) / 40
    assert (content["metric"], content["training"], content["validation"]) == ("accuracy", 128, 40)
    assert max(scores) > least


def config_place(run):
    return read_json_strictly(run / "cells" / GOOD[0] / "config.json")["finetune"]["tasks"][
        0
    ].partition("=")[2]


def test_only_the_best_model_is_kept_and_loads(stopped, swept):
    run = stopped[0]
    best = max(
        (result for result in swept.results if result.metric is not None),
        key=lambda result: result.metric,
    )
    assert swept.best == run / "cells" / best.cell.folder
    kept = checkpoints_of(run)
    assert [name for name, found in kept.items() if found] == [best.cell.folder]
    assert load_finetuned(swept.best).run_dir == swept.best.resolve()


def test_another_configuration_does_not_take_over_what_is_there(config, stopped, swept):
    """Not the figures of finished cells, and a cell that cannot go on for it has not failed."""
    changed = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, label_smoothing=0.1)
    )
    before = content_of(stopped[0])
    with pytest.raises(
        UserError, match=r"config.json: finetune.label_smoothing: found 0.1, expected 0.0"
    ):
        sweep(changed, GRID, stopped[0], TOKENIZER, ("pooler",))
    assert content_of(stopped[0]) == before


def test_a_mistake_that_is_in_every_cell_ends_the_sweep(config, tmp_path):
    with pytest.raises(
        UserError, match="train.batch_size: found 6, expected a multiple of the devices"
    ):
        sweep(
            config,
            dataclasses.replace(GRID, batch_sizes=(6,)),
            epath.Path(tmp_path),
            TOKENIZER,
            ("pooler",),
        )
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_all_models_are_kept_where_that_is_asked_and_drawn_examples_differ_by_seed(
    config, tmp_path, caplog
):
    options = dataclasses.replace(config.finetune, max_train_examples=32)
    grid = Grid(batch_sizes=(16,), learning_rates=(6e-3,), epochs=(1.0,), seeds=(0, 1))
    run = epath.Path(tmp_path)
    with caplog.at_level(logging.INFO, "bertjax"):
        found = sweep(
            dataclasses.replace(config, finetune=options),
            grid,
            run,
            TOKENIZER,
            ("pooler",),
            keep_all=True,
        )
    assert len(found.results) == 2
    assert all(checkpoints_of(run).values())
    facts = [
        load_finetuned(path).checkpoint / "meta" / "metadata" for path in (run / "cells").iterdir()
    ]
    assert len({read_json_strictly(path)["training_rows_sha256"] for path in facts}) == 2
