"""Prepare a corpus, and pretrain on it."""

import dataclasses
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, nullcontext

from etils import epath

from bertjax.api.results import RunResult
from bertjax.config import Config
from bertjax.config.phases.resolution import phases_of
from bertjax.data.preparation import prepare as preparation
from bertjax.data.preparation.runners import Runner
from bertjax.data.records.manifest import Manifest
from bertjax.errors import check
from bertjax.given_files import place_of
from bertjax.parallel import hosts
from bertjax.parallel.job_lock import job_lock
from bertjax.parallel.memory import check_memory
from bertjax.parallel.mesh import make_mesh
from bertjax.progress import Progress, silent
from bertjax.report.html import REPORT, write_report_beside
from bertjax.training import checkpoint
from bertjax.training.batch_source import prepared_source
from bertjax.training.distillation.distill import (
    check_student,
    distilled_source,
    load_given,
    objective_of,
    take_student,
)
from bertjax.training.initial_model import take_initial_model
from bertjax.training.initial_state import check_initial_params
from bertjax.training.logs.log_file import collected_log, log_to_file
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.logs.side_file import SideFile
from bertjax.training.loop import Outcome
from bertjax.training.loop import train as run_loop
from bertjax.training.objective import NOTHING, Objective
from bertjax.training.pretraining import check_heads, pretraining
from bertjax.training.run_tokenizer import check_tokenizer, prepared_tokenizer, save_tokenizer
from bertjax.training.step import abstract_state, check_batch

log = logging.getLogger("bertjax")


def prepare(
    config: Config,
    output_dir: epath.PathLike | None = None,
    *,
    overrides: Collection[str] = (),
    progress: Progress = silent,
    runner: Runner | None = None,
) -> Manifest:
    """Write a tokenizer and shards of pretraining records from the corpus of `config.data`.

    The folder is `output_dir`, by default `config.data.prepared_dir`. Called again after an
    interruption, it makes what is missing; called on a finished folder, it returns its manifest.
    Of a run with phases it is the folder of the first one; for that of another, give its own
    configuration (`phases_of`). `runner` runs the work units, by default in `config.data.workers`
    processes on this machine. With `config.model_from_init` the tokenizer is that of
    `config.init_from`, except the fields in `overrides` (dotted names, such as
    `tokenizer.lowercase`); without it, but with `config.distill.teacher`, it is that of the
    teacher.

    Raises `UserError` for a corpus that cannot be read, a folder that holds another preparation or
    that another process is preparing, or a full disk.

    >>> import bertjax
    >>> config = bertjax.load_config("tiny.py")
    >>> manifest = bertjax.prepare(config, "prepared/example")
    >>> manifest.vocab_size <= config.tokenizer.vocab_size
    True
    >>> sorted({shard.split for shard in manifest.shards})
    ['train', 'validation']
    """
    if config.distill.teacher and not config.init_from:
        # The ids must be those of the teacher.
        teacher = config.distill.teacher
        config = dataclasses.replace(config, init_from=teacher, model_from_init=True)
    config = take_initial_model(config, overrides)
    config = phases_of(config)[0].config
    folder = config.data.prepared_dir if output_dir is None else output_dir
    return preparation.prepare(config, folder, progress=progress, runner=runner)


def train(
    config: Config,
    run_dir: epath.PathLike,
    *,
    overrides: Collection[str] = (),
    progress: Progress = silent,
) -> RunResult:
    """Pretrain on the shards that `prepare` wrote, or continue the run in `run_dir`.

    The run folder gets configuration, tokenizer, log, metrics, checkpoints and report. With
    `config.model_from_init` the model is that of `config.init_from`, but for the fields in
    `overrides` (dotted names, such as `model.hidden_dropout_prob`). SIGTERM and SIGINT end the run
    after the current step, with a checkpoint. Of several processes all call this alike, and the
    first one writes what they share.

    A log, metrics or a report that cannot be written are warned of once, and training goes on.
    Raises `UserError` for a checkpoint that cannot be written; and, before anything is written, for
    data, a tokenizer or a model that do not fit together, and for a run that was started with other
    settings, or is being trained by another process.

    >>> import bertjax
    >>> config = bertjax.load_config("tiny.py")
    >>> result = bertjax.train(config, "runs/example")
    >>> result.step, result.stopped
    (2, False)
    >>> result.metrics["mlm_perplexity"] > 1
    True
    >>> result.report.exists()
    True
    """
    # All that follows counts in a budget of time.
    began = time.monotonic()
    run_dir = place_of(run_dir)
    with ExitStack() as stack:
        # Before there is a log file, which another process may be writing.
        with collected_log() as earlier:
            stack.enter_context(job_lock(run_dir, "train"))
        return _train(config, run_dir, overrides, progress, earlier, began)


def _train(
    config: Config,
    run_dir: epath.Path,
    overrides: Collection[str],
    progress: Progress,
    earlier: Sequence[logging.LogRecord],
    began: float,
) -> RunResult:
    """Do the work of `train`, of which this job has the folder's lock."""
    check(
        config.finetune.quantization_aware == "none",
        where="finetune.quantization_aware",
        found=config.finetune.quantization_aware,
        expected="none in pretraining: it is for `bertjax finetune`",
    )
    teacher = None
    if config.distill.teacher:
        config, teacher = take_student(config, overrides)
    else:
        config = take_initial_model(config, overrides)
    tokenizer = prepared_tokenizer(config)
    first = hosts.is_first()
    if first:
        check_tokenizer(config, tokenizer, run_dir)
    if teacher is not None:
        check_student(config, teacher, tokenizer)
    source = prepared_source(config, tokenizer, progress=progress)
    mesh = make_mesh(config.mesh)
    for phase in phases_of(config):
        check_batch(phase.config, mesh)
    objective: Objective = pretraining(config, source.vocabulary)
    given = NOTHING
    if teacher is not None:
        objective = distilled = objective_of(config, teacher, source.vocabulary)
        given = load_given(config, teacher, mesh)
        source = distilled_source(source, distilled, given, teacher)
    else:
        check_heads(config)
    state = abstract_state(config, mesh, objective)
    for phase in phases_of(config):
        check_memory(phase.config, mesh, (state, given.params))
    if not checkpoint.has_checkpoint(run_dir):
        check_initial_params(config, mesh, objective)

    report_file = SideFile(run_dir / REPORT)

    def report() -> None:
        if first:
            write_report_beside(report_file)

    # Nothing is written before all is checked.
    if first:
        save_tokenizer(config, tokenizer, run_dir)
    with log_to_file(run_dir, earlier) if first else nullcontext():
        for note in source.notes if first else ():
            log.info(note)
        outcome = run_loop(
            config,
            run_dir,
            source,
            objective,
            given=given,
            progress=progress,
            on_evaluation=report,
            began=began,
        )
        report()
        if first and outcome.stopped:
            log.warning("stopped by a signal at step %d", outcome.step)
    return RunResult(
        run_dir=run_dir,
        step=outcome.step,
        stopped=outcome.stopped,
        checkpoint=run_dir / checkpoint.FOLDER / str(outcome.step),
        metrics=newest_heldout(run_dir, outcome),
        report=run_dir / REPORT,
    )


def newest_heldout(run_dir: epath.Path, outcome: Outcome) -> dict[str, float]:
    """Return the metrics of a run's newest held-out evaluation; none before the first."""
    for entry in reversed(outcome.evaluations or read_entries(run_dir)):
        if entry["split"] == "validation":
            return {name: value for name, value in entry.items() if name not in ("step", "split")}
    return {}
