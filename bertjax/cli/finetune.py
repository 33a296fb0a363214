"""`bertjax finetune CONFIG --init-from MODEL --finetune.tasks NAME=PLACE ... [--grid paper]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bertjax.cli.arguments import (
    Configured,
    parse_configured,
    quiet_libraries,
    run_name,
    run_terminal,
    wants_help,
)
from bertjax.cli.train import STOPPED
from bertjax.config import Config
from bertjax.number_text import number_text

if TYPE_CHECKING:
    from etils import epath

    from bertjax.api.results import RunResult
    from bertjax.finetuning.sweep_grid import Grid


@dataclass(frozen=True)
class FinetuneCommand:
    """Fine-tune a model on tasks: one run, or a sweep over settings and seeds. The same command
    continues a run or a sweep that was stopped.
    """

    run_dir: str = ""
    """Folder of the run or sweep; by default runs/NAME with the configuration's NAME, such as
    runs/finetune_paper for finetune/paper.
    """
    grid: Literal["none", "paper"] = "none"
    """paper: a sweep over all settings in the BERT paper: batch sizes 16 and 32; learning rates
    5e-5, 3e-5 and 2e-5; 2, 3 and 4 epochs.
    """
    seeds: tuple[int, ...] = ()
    """Seeds of a sweep; each setting is run with each seed."""
    batch_sizes: tuple[int, ...] = ()
    """Batch sizes of a sweep; they replace those of the grid or of the configuration."""
    learning_rates: tuple[float, ...] = ()
    """Peak learning rates of a sweep; they replace those of the grid or of the configuration."""
    epochs: tuple[float, ...] = ()
    """Numbers of epochs of a sweep; they replace those of the grid or of the configuration."""
    keep: Literal["best", "all"] = "best"
    """Models of a sweep that are kept: the one with the best score, or all models."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    @property
    def is_sweep(self) -> bool:
        """True if the options ask for several runs."""
        lists = (self.seeds, self.batch_sizes, self.learning_rates, self.epochs)
        return self.grid != "none" or any(lists)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    # Help needs no other process, so it is printed before they are connected.
    if wants_help(words):
        parse_configured("finetune", FinetuneCommand, words)
    quiet_libraries()

    from bertjax.given_files import place_of
    from bertjax.parallel import compile_cache, failures

    # The command line is parsed inside this block: a mistake in one process must end all of them.
    with failures.end_together():
        configured = parse_configured("finetune", FinetuneCommand, words)
        run_dir = place_of(configured.command.run_dir or f"runs/{run_name(configured.subject)}")
        compile_cache.start(run_dir)
        if configured.command.is_sweep:
            return _sweep(configured, run_dir)
        return _run(configured, run_dir)


def _run(configured: Configured, run_dir: "epath.Path") -> int:
    """Do one fine-tuning run; all processes call this, and the first one prints the result."""
    from bertjax.api.finetune import finetune
    from bertjax.parallel import hosts

    with run_terminal() as progress:
        result = finetune(
            configured.command.config,
            run_dir,
            overrides=configured.overrides,
            progress=progress,
        )
    if result.stopped:
        if hosts.is_first():
            print(f"stopped by a signal at step {result.step}, saved; the same command continues")
        return STOPPED
    if hosts.is_first():
        print_result(result)
    return 0


def _sweep(configured: Configured, run_dir: "epath.Path") -> int:
    from bertjax.api.finetune import sweep

    command = configured.command
    grid = _grid(command)
    with run_terminal() as progress:
        result = sweep(
            command.config,
            run_dir,
            grid,
            keep_all=command.keep == "all",
            overrides=configured.overrides,
            progress=progress,
            on_run=lambda line: print(line, flush=True),
        )
    if result.stopped:
        print(f"stopped by a signal after {len(result.cells)} runs; the same command continues")
        return STOPPED
    print(result.table)
    print(f"best run: {result.best.run_dir if result.best else None}")
    if result.best:
        print_result(result.best)
    return 0


def _grid(command: FinetuneCommand) -> "Grid":
    """Return the grid from the options; values that are not given come from the configuration."""
    from bertjax.finetuning.sweep_grid import PAPER_GRID, Grid

    config = command.config
    default = PAPER_GRID
    if command.grid == "none":
        default = Grid(
            batch_sizes=(config.train.batch_size,),
            learning_rates=(config.optimizer.peak_learning_rate,),
            epochs=(config.finetune.epochs,),
        )
    return Grid(
        batch_sizes=command.batch_sizes or default.batch_sizes,
        learning_rates=command.learning_rates or default.learning_rates,
        epochs=command.epochs or default.epochs,
        seeds=command.seeds or (config.seed,),
    )


def print_result(result: "RunResult") -> None:
    """Print the selected checkpoint of a finished run with its metrics, and its report."""
    print(f"checkpoint: {result.checkpoint}")
    for name, value in result.metrics.items():
        print(f"{name}: {number_text(value, '.4f')}")
    print(f"report: {result.report}")
