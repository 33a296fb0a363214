"""Sweeps: a run for each setting and seed, finished ones not run again, and a table of what they
gave.
"""

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from bertjax.config import Config, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.finetuning import finetune
from bertjax.finetuning import sweep_grid as sweep_cells
from bertjax.finetuning.finetune import Prepared
from bertjax.finetuning.sweep_grid import Cell, Grid, Result
from bertjax.progress import Progress, silent
from bertjax.storage import read_json, write_whole
from bertjax.training import checkpoint, run_config
from bertjax.training.logs.step_log import DivergedError

log = logging.getLogger("bertjax")

CELLS, FAILED, FILE = "cells", "failed.json", "sweep.json"


class Swept(NamedTuple):
    """What came of a sweep."""

    results: list[Result]
    table: str
    best: epath.Path | None
    """The run of the best score."""
    stopped: bool
    """Whether a signal ended it before its last cell; the same call goes on."""


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
    tell: Callable[[str], object] = lambda line: None,
) -> Swept:
    """Fine-tune `config` in every cell of the grid, each in its folder under `run_dir/cells`;
    writes `sweep.json`.

    Of the models only the best is kept, unless `keep_all`. A cell in which training fails, as by a
    loss that is not finite, is a failed run, and the sweep goes on.
    """
    cells = sweep_cells.cells(grid)
    by_seed: dict[int, Prepared] = {}
    if prepared is not None:
        by_seed[cells[0].seed] = prepared
    results: list[Result] = []
    rows: list[sweep_cells.Row] = []
    stopped = False

    for number, cell in enumerate(cells):
        # The training examples that are drawn differ by seed.
        seed = cell.seed if config.finetune.max_train_examples else cells[0].seed
        if seed not in by_seed:
            # One at a time: the training rows of all seeds may not fit into memory.
            by_seed = {seed: finetune.prepare(dataclasses.replace(config, seed=seed), tokenizer)}
        result = _run_cell(
            config,
            cell,
            _folder(run_dir, cell),
            by_seed[seed],
            tokenizer,
            restored_heads,
            progress,
        )
        if result is None:
            stopped = True
            break
        results.append(result)
        said = "failed" if result.metric is None else f"{result.metric:.4f}"
        tell(f"{number + 1} of {len(cells)}: {cell.folder}: {said}")
        if not keep_all:
            _keep_best(run_dir, results)
        rows = _write(run_dir, results, by_seed[seed])
    # Of a smaller sweep than an earlier one the best model may be gone.
    folders = (_folder(run_dir, result.cell) for result in _best_first(results))
    best = next((folder for folder in folders if checkpoint.has_checkpoint(folder)), None)
    return Swept(results, sweep_cells.table(rows), best, stopped)


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
    """What the cell gave, or gives now; None where a signal stopped it."""
    own = finetune.resolve(_cell_config(config, cell), prepared, restored_heads)
    if (folder / FAILED).exists() or (folder / checkpoint.RESULT).exists():
        run_config.write_run_config(
            folder, own
        )  # what an earlier call found counts for its configuration and data only
        finetune.check_same_rows(folder, prepared)
    if (folder / FAILED).exists():
        return Result(cell, None)
    if not (folder / checkpoint.RESULT).exists():
        try:
            outcome = finetune.finetune(own, folder, prepared, tokenizer, progress=progress)
        except DivergedError as error:
            log.warning("%s: failed: %s", cell.folder, error)
            write_whole(folder / FAILED, (json.dumps({"error": str(error)}) + "\n").encode())
            return Result(cell, None)
        if outcome.stopped:
            return None
        tokenizer.save(folder / "tokenizer", own.model.max_length)
        finetune.write_result(own, folder, outcome.step, prepared)
    return Result(cell, read_json(folder / checkpoint.RESULT)["figures"]["score"])


def _cell_config(config: Config, cell: Cell) -> Config:
    setting = cell.setting
    return dataclasses.replace(
        config,
        seed=cell.seed,
        optimizer=dataclasses.replace(
            config.optimizer, peak_learning_rate=setting.peak_learning_rate
        ),
        train=dataclasses.replace(config.train, batch_size=setting.batch_size),
        finetune=dataclasses.replace(config.finetune, epochs=setting.epochs),
    )


def _best_first(results: list[Result]) -> list[Result]:
    return sorted((r for r in results if r.metric is not None), key=lambda r: -(r.metric or 0.0))


def _keep_best(run_dir: epath.Path, results: list[Result]) -> None:
    best = _best_first(results)[:1]
    for result in results:
        folder = _folder(run_dir, result.cell) / checkpoint.FOLDER
        if result not in best and folder.exists():
            folder.rmtree()


def _write(run_dir: epath.Path, results: list[Result], prepared: Prepared) -> list[sweep_cells.Row]:
    """Write `sweep.json` of the cells so far; returns the table's rows."""
    opened = prepared.opened
    rows = sweep_cells.summary(results, baseline=prepared.baseline)
    content = {
        "metric": opened[0].task.metric if len(opened) == 1 else "score",
        "training": sum(len(one.splits["train"]) for one in opened),
        "validation": sum(len(split.examples) for split in prepared.validation if not split.name),
        "baseline": prepared.baseline,
        "cells": [
            {**dataclasses.asdict(r.cell.setting), "seed": r.cell.seed, "metric": r.metric}
            for r in results
        ],
        "settings": [dataclasses.asdict(row) for row in rows],
    }
    write_whole(run_dir / FILE, (json.dumps(content, indent=1) + "\n").encode())
    return rows
