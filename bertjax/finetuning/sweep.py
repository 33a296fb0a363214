"""Sweeps: one run for each setting and seed, without those that are finished, and a table."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import Config, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning import finetune, sweep_grid
from bertjax.finetuning.finetune import Prepared
from bertjax.finetuning.sweep_grid import Cell, Grid, Result, SettingSummary
from bertjax.json_values import value_of
from bertjax.number_text import number_text
from bertjax.parallel.job_lock import job_lock
from bertjax.progress import Progress, silent
from bertjax.storage import check_locks, folder_lock, read_json, write_whole
from bertjax.training import checkpoint, run_config
from bertjax.training.logs.step_log import DivergedError
from bertjax.training.run_config import CELLS, FAILED

log = logging.getLogger("bertjax")

FILE = "sweep.json"


class Swept(NamedTuple):
    """The results of a sweep."""

    results: list[Result]
    table: str
    best: epath.Path | None
    """The run with the best score; None where no model is left."""
    stopped: bool
    """True if a signal ended it before its last cell; the same call continues it."""


def _ignore(line: str) -> None:
    pass


def sweep(
    config: Config,
    grid: Grid,
    run_dir: epath.Path,
    tokenizer: Tokenizer,
    restored_heads: tuple[Head, ...],
    *,
    prepared: Prepared | None = None,
    keep_all: bool = False,
    progress: Progress = silent,
    on_run: Callable[[str], object] = _ignore,
) -> Swept:
    """Fine-tune `config` in every cell of the grid, each in its folder under `run_dir/cells`.

    `restored_heads` are those of the model to start from. `prepared` are the tasks' data for the
    first cell's seed, where they have been read already. `sweep.json` has the results so far.
    `on_run` is called with a line after each run. Of the models only the best is kept, unless
    `keep_all`. A cell in which training fails, with a loss that is not finite for example, is a
    failed run, and the sweep goes on.
    """
    cells = sweep_grid.cells(grid)
    by_seed: dict[int, Prepared] = {}
    if prepared is not None:
        by_seed[cells[0].seed] = prepared
    results: list[Result] = []
    summaries: list[SettingSummary] = []
    stopped = False
    for number, cell in enumerate(cells, 1):
        # The training examples that are drawn depend on the seed.
        seed = cell.seed if config.finetune.max_train_examples else cells[0].seed
        if seed not in by_seed:
            # One at a time: the training rows of all seeds may not fit into memory.
            by_seed = {seed: finetune.prepare(config.replace(seed=seed), tokenizer)}
        folder = _folder(run_dir, cell)
        # Its own lock: it is a run like any other, which `finetune` may also continue alone.
        with job_lock(folder, "finetune"):
            result = _run_cell(
                config, cell, folder, by_seed[seed], tokenizer, restored_heads, progress
            )
        if result is None:
            stopped = True
            break
        results.append(result)
        outcome = "failed" if result.metric is None else number_text(result.metric, ".4f")
        on_run(f"{number} of {len(cells)}: {cell.folder}: {outcome}")
        # After each run and not at the end: two models at most are on the disk.
        if not keep_all:
            _keep_best(run_dir, results)
        summaries = _write(run_dir, results, by_seed[seed])
    best = _best_run(run_dir, results)
    # A grid has one cell or more, so one seed's data have been read; all have the same tasks.
    table = _table(summaries, next(iter(by_seed.values())))
    return Swept(results, table, best, stopped)


def _table(summaries: list[SettingSummary], prepared: Prepared) -> str:
    """Return a line with the name of the score, and the table of the settings."""
    tasks = [opened.task for opened in prepared.opened]
    in_percent = all(task.metric_scale.is_share for task in tasks)
    lines = sweep_grid.table(summaries, in_percent=in_percent)
    return f"score: {_score_name(prepared)}\n{lines}"


def _score_name(prepared: Prepared) -> str:
    """Return the name of what the score is: of one task, its metric."""
    if len(prepared.opened) > 1:
        return "mean over the tasks"
    task = prepared.opened[0].task
    return task.metric_scale.score_name(task.metric)


def _folder(run_dir: epath.Path, cell: Cell) -> epath.Path:
    return run_dir / CELLS / cell.folder


def _run_cell(
    config: Config,
    cell: Cell,
    folder: epath.Path,
    prepared: Prepared,
    tokenizer: Tokenizer,
    restored_heads: tuple[Head, ...],
    progress: Progress,
) -> Result | None:
    """Run a cell, or read its earlier result; None where a signal stopped it."""
    resolved = finetune.resolve(cell_config(config, cell), prepared, restored_heads)
    failed, finished = (folder / FAILED).exists(), (folder / checkpoint.RESULT).exists()
    if failed or finished:
        # An earlier result holds for its own configuration and data only.
        facts = finetune.facts_of(prepared, tokenizer)
        run_config.write_run_config(folder, resolved, facts)
        finetune.check_finished_on(folder, prepared)
    # It is not tried again: the same seed and data would diverge again.
    if failed:
        return Result(cell, None)
    if not finished:
        try:
            outcome = finetune.finetune(resolved, folder, prepared, tokenizer, progress=progress)
        # Any other error ends the sweep: a mistake in the data or the configuration is in every
        # cell.
        except DivergedError as error:
            log.warning("%s: failed: %s", cell.folder, error)
            write_whole(folder / FAILED, (json.dumps({"error": str(error)}) + "\n").encode())
            return Result(cell, None)
        if outcome.stopped:
            return None
        # Before `result.json`, which marks the run as finished: it is never without its tokenizer.
        tokenizer.save(folder / "tokenizer", resolved.model.max_length)
        finetune.write_result(resolved, folder, outcome.evaluations, prepared)
    figures = _figures(folder / checkpoint.RESULT)
    return Result(cell, figures["score"], prepared.is_constant(figures))


def _figures(path: epath.Path) -> dict[str, Any]:
    """Return the figures in a `result.json`; None for one that was not finite."""
    figures = value_of(dict[str, float | None], read_json(path).get("figures"), f"{path}: figures")
    check("score" in figures, where=str(path), found="no score among its figures", expected="one")
    return figures


def cell_config(config: Config, cell: Cell) -> Config:
    """Return `config` with the setting and the seed of a cell."""
    setting = cell.setting
    return config.replace(
        seed=cell.seed,
        optimizer={"peak_learning_rate": setting.peak_learning_rate},
        train={"batch_size": setting.batch_size},
        # An instance, since a mapping would make 2.0 of the grid's 2, and another `config.json`.
        finetune=dataclasses.replace(config.finetune, epochs=setting.epochs),
    )


def _best_first(results: list[Result]) -> list[Result]:
    """Return the results that have a metric, the best first; equal ones keep their order."""
    finished = [result for result in results if result.metric is not None]
    return sorted(finished, key=_sort_key)


def _sort_key(result: Result) -> float:
    """Return a number that is less for a better metric."""
    return math.inf if result.metric is None else -result.metric


def _best_run(run_dir: epath.Path, results: list[Result]) -> epath.Path | None:
    """Return the folder of the best run that has a model.

    A sweep that is smaller than an earlier one in the same folder may find the best model gone.
    """
    for result in _best_first(results):
        folder = _folder(run_dir, result.cell)
        if checkpoint.has_checkpoint(folder):
            return folder
    return None


def _keep_best(run_dir: epath.Path, results: list[Result]) -> None:
    """Remove the checkpoints of all runs but the best."""
    best = _best_first(results)[:1]
    for result in results:
        # Results and logs stay: a sweep that is started again reads them.
        folder = _folder(run_dir, result.cell) / checkpoint.FOLDER
        if result not in best and folder.exists():
            with folder_lock(folder.parent, "finetune"):
                check_locks(folder)
                folder.rmtree()


def _write(run_dir: epath.Path, results: list[Result], prepared: Prepared) -> list[SettingSummary]:
    """Write `sweep.json` of the cells so far; return the summaries of the settings."""
    opened = prepared.opened
    summaries = sweep_grid.summarize(results, baseline=prepared.baseline)
    cells = []
    for result in results:
        setting = dataclasses.asdict(result.cell.setting)
        cells.append({**setting, "seed": result.cell.seed, "metric": result.metric})
    own_validation = [split for split in prepared.validation if not split.name]
    content = {
        "metric": _score_name(prepared) if len(opened) == 1 else "score",
        "training": sum(len(task.splits["train"]) for task in opened),
        "validation": sum(len(split.examples) for split in own_validation),
        "baseline": prepared.baseline,
        "cells": cells,
        "settings": [dataclasses.asdict(summary) for summary in summaries],
    }
    write_whole(run_dir / FILE, (json.dumps(content, indent=1) + "\n").encode())
    return summaries
