"""Fine-tune a model on tasks: one run, or a sweep of settings and seeds."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from etils import epath

from bertjax.api.pretrain import newest_heldout
from bertjax.api.results import RunResult
from bertjax.config import Config, Head
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.finetuning import finetune as tuning
from bertjax.finetuning import sweep as sweeping
from bertjax.finetuning.baseline import warn_of_baseline
from bertjax.finetuning.distillation import check_taught
from bertjax.finetuning.evaluate_checkpoint import evaluate_finished
from bertjax.finetuning.finetune import Prepared
from bertjax.finetuning.signatures import log_signatures
from bertjax.finetuning.sweep_grid import Grid, Result, cells
from bertjax.given_files import place_of
from bertjax.interop.import_model import (
    ExternalModel,
    check_imported_from,
    is_external,
    is_imported_from,
    read_external_model,
    save_external_model,
)
from bertjax.model import functional
from bertjax.parallel import hosts
from bertjax.parallel.job_lock import job_lock
from bertjax.parallel.memory import check_memory
from bertjax.parallel.mesh import make_mesh
from bertjax.progress import Progress, silent
from bertjax.report.html import REPORT, write_report_beside
from bertjax.storage import check_locks, folder_lock
from bertjax.storage.output_record import is_whole
from bertjax.storage.outputs import discard, remove_left
from bertjax.training import checkpoint
from bertjax.training.distillation.student import student_of
from bertjax.training.distillation.teacher import Teacher, open_teacher
from bertjax.training.initial_model import (
    InitialModel,
    read_initial_model,
    take_initial_model_to_finetune,
)
from bertjax.training.initial_state import check_initial_params
from bertjax.training.logs.log_file import collected_log, log_to_file
from bertjax.training.logs.side_file import SideFile
from bertjax.training.run_config import has_begun
from bertjax.training.run_tokenizer import check_tokenizer, initial_tokenizer, save_tokenizer
from bertjax.training.saved_model import TOKENIZER, saved_tokenizer
from bertjax.training.step import abstract_state, check_batch

log = logging.getLogger("bertjax")

IMPORTED = "init"  # folder, in the run's, of a model of another program that it starts from


@dataclass(frozen=True)
class SweepResult:
    """A sweep when `sweep` returns."""

    cells: list[Result]
    """Finished runs with their scores, in the order they ran in."""
    table: str
    """The settings with mean, deviation and best score, aligned for a terminal."""
    best: RunResult | None
    """The run with the best score; None where no model is left, or the sweep was stopped."""
    stopped: bool
    """True if SIGTERM or SIGINT ended the sweep early; the same call continues it."""


@dataclass(frozen=True)
class _Start:
    """The model that a run starts from, read and not yet written anywhere."""

    init_from: str
    """The run that it is, or will be once it is imported; empty for none."""
    initial: InitialModel | None = None
    external: ExternalModel | None = None
    """The model of another program that is still to be imported."""
    tokenizer: Tokenizer | None = None
    """Its tokenizer."""


@dataclass(frozen=True)
class _Checked:
    """All that a fine-tuning needs beside the start, checked before anything is written."""

    config: Config
    tokenizer: Tokenizer
    prepared: Prepared
    heads: tuple[Head, ...]
    """Heads of the model to start from."""


def _ignore(line: str) -> None:
    pass


def finetune(
    config: Config,
    run_dir: epath.PathLike,
    *,
    overrides: Collection[str] = (),
    progress: Progress = silent,
) -> RunResult:
    """Fine-tune `config.init_from` on `config.finetune.tasks`, or continue the run in `run_dir`.

    `init_from` is a run or checkpoint folder, or a model folder of `transformers` or of the
    original BERT, which is imported into `run_dir/init`. If it is empty, the initial parameters are
    random. With `config.model_from_init`, model and tokenizer are those of `init_from`, except the
    fields in `overrides` (dotted names, such as `model.hidden_dropout_prob`). After the last step
    the checkpoint with the best validation score is evaluated. If there are several processes, all
    must call this with the same arguments, and the first one writes the files that they share.

    Raises `UserError`, before anything is written, for an invalid task, file, label or setting, and
    for a run that was started with other settings or examples, or that another process writes.

    >>> import bertjax
    >>> config = bertjax.load_config("finetune.py")
    >>> result = bertjax.finetune(config, "runs/finetuned")
    >>> sorted(result.metrics)
    ['accuracy', 'loss', 'score']
    >>> result.checkpoint.parent.name
    'checkpoints'
    """
    run_dir = place_of(run_dir)
    with _started(config, run_dir, overrides) as (checked, earlier):
        return _finetune(checked, run_dir, progress, earlier)


@contextmanager
def _started(
    config: Config, run_dir: epath.Path, overrides: Collection[str]
) -> Iterator[tuple[_Checked, Sequence[logging.LogRecord]]]:
    """Hold the lock of a run folder whose start is checked and written, within the block.

    Yields what training needs, and the lines of the log so far.
    """
    with ExitStack() as stack:
        # Nothing is written before all is checked, so there is no log file yet.
        with collected_log() as earlier:
            stack.enter_context(job_lock(run_dir, "finetune"))
            checked, external = _check(config, run_dir, overrides)
        _write_start(checked, external, run_dir)
        del external  # the parameters are on the disk, and training needs the memory
        yield checked, earlier


def _finetune(
    checked: _Checked,
    run_dir: epath.Path,
    progress: Progress,
    earlier: Sequence[logging.LogRecord],
) -> RunResult:
    """Train in a run folder whose start is written, of which this job has the lock."""
    first = hosts.is_first()

    report_file = SideFile(run_dir / REPORT)

    def report() -> None:
        if first:
            write_report_beside(report_file)

    resolved = tuning.resolve(checked.config, checked.prepared, checked.heads)
    with log_to_file(run_dir, earlier) if first else nullcontext():
        log_signatures(checked.prepared.signatures)
        outcome = tuning.finetune(
            resolved,
            run_dir,
            checked.prepared,
            checked.tokenizer,
            progress=progress,
            on_evaluation=report,
        )
        if outcome.stopped:
            log.warning("stopped by a signal at step %d", outcome.step)
            return RunResult(
                run_dir=run_dir,
                step=outcome.step,
                stopped=True,
                checkpoint=run_dir / checkpoint.FOLDER / str(outcome.step),
                metrics=newest_heldout(run_dir, outcome),
                report=run_dir / REPORT,
            )
        if first:
            result = tuning.write_result(resolved, run_dir, outcome.evaluations, checked.prepared)
        evaluated = _evaluated(run_dir, checked, outcome.step, report_file)
        if first:
            figures = result["figures"]
            constant = checked.prepared.is_constant(figures)
            warn_of_baseline(checked.prepared.baseline, figures["score"], constant=constant)
        return evaluated


def sweep(
    config: Config,
    run_dir: epath.PathLike,
    grid: Grid,
    *,
    keep_all: bool = False,
    overrides: Collection[str] = (),
    progress: Progress = silent,
    on_run: Callable[[str], object] = _ignore,
) -> SweepResult:
    """Fine-tune in every cell of a grid of settings and seeds, each in a folder of its own.

    The runs are in `run_dir/cells`; cells that are finished do not run again. Only the model with
    the best score is kept, unless `keep_all`. `on_run` is called with a line after each run. The
    other arguments, and the errors, are those of `finetune`. A sweep runs in one process.

    >>> import bertjax
    >>> config = bertjax.load_config("finetune.py")
    >>> grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3,), epochs=(1,), seeds=(0, 1))
    >>> result = bertjax.sweep(config, "runs/sweep", grid)
    >>> [cell.cell.seed for cell in result.cells]
    [0, 1]
    >>> result.best.run_dir.parent.name
    'cells'
    """
    run_dir = place_of(run_dir)
    check(
        not hosts.is_multiprocess(),
        where="a sweep",
        found="several processes",
        expected="one process",
    )
    # Settings and data are checked as the first cell has them; the others differ in numbers only.
    first_cell = sweeping.cell_config(config, cells(grid)[0])
    with (
        _started(first_cell, run_dir, overrides) as (checked, earlier),
        log_to_file(run_dir, earlier),
    ):
        log_signatures(checked.prepared.signatures)
        swept = sweeping.sweep(
            checked.config,
            grid,
            run_dir,
            checked.tokenizer,
            checked.heads,
            prepared=checked.prepared,
            keep_all=keep_all,
            progress=progress,
            on_run=on_run,
        )
        best = None
        if swept.best is not None and not swept.stopped:
            _, folder = checkpoint.find_checkpoint(swept.best)
            report_file = SideFile(swept.best / REPORT)
            with folder_lock(swept.best, "finetune"):
                best = _evaluated(swept.best, checked, int(folder.name), report_file)
    return SweepResult(swept.results, swept.table, best, swept.stopped)


def _check(
    config: Config, run_dir: epath.Path, overrides: Collection[str]
) -> tuple[_Checked, ExternalModel | None]:
    """Read and check the model to start from and the tasks; write nothing.

    Returns what training needs, and a model of another program that is still to be imported.
    """
    check(
        config.finetune.tasks,
        where="finetune.tasks",
        found="none",
        expected="one or more, as rte=data/RTE",
    )
    start = _read_start(config.init_from, run_dir)
    teacher = None
    if config.distill.teacher:
        teacher = open_teacher(config.distill.teacher, config.mesh)
    if teacher is not None and not config.init_from:
        config = _take_student(config, overrides, teacher)
        tokenizer: Tokenizer | None = saved_tokenizer(teacher.run_dir, teacher.checkpoint)
        heads = teacher.model.heads
    else:
        # A student that has a model to start from is that model.
        from_init = config.model_from_init
        asked = dataclasses.replace(config, model_from_init=from_init or teacher is not None)
        taken = take_initial_model_to_finetune(asked, overrides, initial=start.initial)
        config = dataclasses.replace(taken, init_from=start.init_from, model_from_init=from_init)
        tokenizer = start.tokenizer
        heads = start.initial.config.model.heads if start.initial else ()
    if tokenizer is None:
        tokenizer = initial_tokenizer(config, run_dir)
    if hosts.is_first():
        check_tokenizer(config, tokenizer, run_dir)
    prepared = tuning.prepare(config, tokenizer)
    if teacher is not None:
        tasks = [opened.task for opened in prepared.opened]
        config = check_taught(config, teacher, tasks, tokenizer)
    resolved = tuning.resolve(config, prepared, heads)
    mesh = make_mesh(config.mesh)
    check_batch(resolved, mesh)
    objective = tuning.objective_of(resolved, prepared)
    given = functional.shapes(teacher.model) if teacher is not None else {}
    check_memory(resolved, mesh, (abstract_state(resolved, mesh, objective), given))
    if not checkpoint.has_checkpoint(run_dir):
        imported = start.external.params if start.external else None
        check_initial_params(resolved, mesh, objective, imported=imported)
    return _Checked(config, tokenizer, prepared, heads), start.external


def _take_student(config: Config, overrides: Collection[str], teacher: Teacher) -> Config:
    """Return `config` with the model of a student that has no model to start from."""
    asked = dataclasses.replace(config, model_from_init=True)
    student = student_of(config, teacher)
    taken = take_initial_model_to_finetune(asked, overrides, initial=student)
    return dataclasses.replace(
        taken, model_from_init=config.model_from_init, tokenizer=config.tokenizer
    )


def _read_start(init_from: str, run_dir: epath.Path) -> _Start:
    """Read what `init_from` names: a run's configuration, or a whole model of another program."""
    if not init_from:
        return _Start("")
    source = place_of(init_from)
    if not is_external(source):
        return _Start(init_from, read_initial_model(init_from))
    check(
        not hosts.is_multiprocess(),
        where="init_from",
        found=source,
        expected="a run, for several processes (`bertjax import` makes one)",
    )
    folder = run_dir / IMPORTED
    # An earlier start of this run has imported it. If it ended before its first update, it may
    # have imported another model, which is replaced.
    imported = is_whole(folder) and checkpoint.has_checkpoint(folder)
    if imported and (has_begun(run_dir) or is_imported_from(folder, source)):
        check_imported_from(folder, source)
        return _Start(str(folder), read_initial_model(folder))
    external = read_external_model(source)
    if external.tokenizer is None:
        raise UserError(
            f"{source}: found no vocabulary, expected vocab.txt or another tokenizer's files"
        )
    # The place where the tokenizer will be: nothing is written before all is checked.
    initial = InitialModel(external.config, folder.resolve() / TOKENIZER)
    return _Start(str(folder), initial, external, external.tokenizer)


def _write_start(checked: _Checked, external: ExternalModel | None, run_dir: epath.Path) -> None:
    """Import the model to start from, if it is another program's, and save the run's tokenizer."""
    if external is not None:
        if is_whole(run_dir / IMPORTED):
            check_locks(run_dir / IMPORTED)
            discard(run_dir / IMPORTED)
        save_external_model(external, run_dir / IMPORTED)
    if hosts.is_first():
        remove_left(run_dir / IMPORTED, "finetune")
        save_tokenizer(checked.config, checked.tokenizer, run_dir)


def _evaluated(
    run_dir: epath.Path, checked: _Checked, step: int, report_file: SideFile
) -> RunResult:
    """Evaluate the selected checkpoint of a finished run, and write its report."""
    folder, metrics = evaluate_finished(run_dir, checked.tokenizer, checked.prepared.validation)
    if hosts.is_first():
        write_report_beside(report_file)
    return RunResult(
        run_dir=run_dir,
        step=step,
        stopped=False,
        checkpoint=folder,
        metrics=metrics,
        report=run_dir / REPORT,
    )
