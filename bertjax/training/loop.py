"""The training loop, on any source of batches: start or resume, update, evaluate, save."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config, TrainConfig, to_dict
from bertjax.config.phases.kept import marks_of
from bertjax.config.phases.resolution import phases_of
from bertjax.data.batch_checks import check_ids
from bertjax.model.functional import Params
from bertjax.parallel import hosts
from bertjax.parallel.announce import announce_compilation
from bertjax.parallel.memory import batch_memory_errors, check_memory
from bertjax.parallel.mesh import make_mesh
from bertjax.progress import Progress, silent
from bertjax.training.batch_source import BatchSource, interleave
from bertjax.training.budget.budget import Budget
from bertjax.training.budget.record import BUDGET, place_of
from bertjax.training.checkpoint import PHASE, Checkpoints, read_meta, versions
from bertjax.training.evaluate import Evaluator
from bertjax.training.initial_state import begun
from bertjax.training.logs.metrics_log import MetricsLog
from bertjax.training.logs.step_log import BATCH_SIZE, StepLog, Update, format_metrics
from bertjax.training.objective import NOTHING, Given, Objective
from bertjax.training.optimization.sparsity import is_reached, sparsity_schedule
from bertjax.training.phases.phase_run import PhaseRun, phase_runs
from bertjax.training.pretraining import check_heads, pretraining
from bertjax.training.provenance import data_record
from bertjax.training.step import TrainState, abstract_state, check_batch
from bertjax.types import Batch

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class Outcome:
    """The end of a run: the step it reached, and whether a signal stopped it before its last."""

    step: int
    stopped: bool
    evaluations: Sequence[Mapping[str, Any]] = ()
    """Entries of `metrics.jsonl` of the held-out evaluations, also where they could not be written.

    Only the first process has them.
    """


def train(
    config: Config,
    run_dir: epath.PathLike,
    source: BatchSource,
    objective: Objective | None = None,
    *,
    given: Given = NOTHING,
    progress: Progress = silent,
    on_evaluation: Callable[[], object] = lambda: None,
    began: float | None = None,
) -> Outcome:
    """Train `config` in `run_dir`, and return how the run ended.

    Training starts from the state that `initial_state` returns: the newest checkpoint in `run_dir`
    if there is one. The default objective is pretraining; `given` is what it reads beside the
    parameters. `on_evaluation` is called after each
    held-out evaluation, when its metrics are written and the save of a checkpoint that is due has
    begun. `began` is the `time.monotonic()` from which the time of `train.budget` counts; None:
    that of the call.

    SIGTERM and SIGINT end the run after the current step, with a checkpoint. If one of several
    processes gets the signal, all end after the same step. All processes call this with the same
    arguments; the first one writes the files that all share.

    Raises `UserError` if the configuration does not fit the devices or what is in the folder, and
    `DivergedError` if training diverges.
    """
    if objective is None:
        check_heads(config)
        objective = pretraining(config, source.vocabulary)
    with _stop_signal() as stop, batch_memory_errors(config):
        return _train(
            config,
            epath.Path(run_dir),
            source,
            objective,
            given,
            progress,
            on_evaluation,
            stop,
            time.monotonic() if began is None else began,
        )


def _train(
    config: Config,
    run_dir: epath.Path,
    source: BatchSource,
    objective: Objective,
    given: Given,
    progress: Progress,
    on_evaluation: Callable[[], object],
    stop: threading.Event,
    began: float,
) -> Outcome:
    # Mesh and shardings
    mesh = make_mesh(config.mesh)
    for phase in phases_of(config):
        check_batch(phase.config, mesh)
    target = abstract_state(config, mesh, objective)
    for phase in phases_of(config):
        check_memory(phase.config, mesh, (target, given.params))

    # State, created sharded or restored
    config, checkpoints, state = begun(
        config, run_dir, mesh, objective, source.facts, target, given
    )
    start = int(state.step)
    # After the state: the log is cut back to the step that was restored.
    metrics = MetricsLog(run_dir, start, writes=hosts.is_first())
    saved_at = checkpoints.folder / str(start)
    saved = read_meta(saved_at) if start else {}
    _log_start(config, start, mesh)
    data_record.say_versions(saved_at, saved)

    # Programs and records
    runs = phase_runs(config, mesh, source, objective, given, saved.get(BATCH_SIZE))
    own = next(run for run in runs if start <= run.phase.end)
    step_log = StepLog(own.config, run_dir, metrics, own.schedule)
    facts = data_record.with_changes(saved, source.facts, start)
    budget = Budget(config, run_dir, saved, began) if config.train.budget else None
    records = _Records(config, checkpoints, metrics, facts, budget)
    records.enter(own)

    # Loop
    step = start
    if own.evaluator and hosts.agree(records.misses_evaluation(start)):
        records.evaluate(start, state.params, own.evaluator)
    # A run that ended early does no further step when it is started again.
    stalled = start > 0 and records.has_stalled()
    marks = marks_of(config)
    # Of all hosts the first decides: another one may see the folder late.
    if start == 0 and marks.passed(-1, 0) and hosts.agree(checkpoints.latest() is None):
        records.save(0, state, None)
    ended = stalled or _is_used(budget)
    updates = iter(()) if ended else _updates(runs, start)
    for number, (run, batches, batch) in enumerate(updates, 1):
        if number == 1 or run is not own:
            own = run
            step_log.enter(own.config, own.schedule)
            records.enter(own)
            _announce_phase(config, own)
        before, step = step, step + batches
        global_size = batches * own.config.train.batch_size
        # In each update: without its checkpoints a run is not to go on until the next one is due.
        checkpoints.check()
        global_batch = hosts.global_batch(mesh, batch, global_size)
        passed = budget.next() if budget else None
        place = None if passed is None else place_of(passed, config.train.steps)
        state, scalars = own.train_step(state, global_batch, place)
        if budget:
            budget.started(scalars["loss"])
        known = {} if passed is None else {"budget_passed": passed}
        step_log.add(Update(step, batches, {**scalars, **known}, batch))
        # `should_stop_after` is called first and in every update, because the processes count the
        # calls to agree on a step.
        is_stopped = hosts.should_stop_after(number, stop.is_set())
        is_end = step == config.train.steps or _is_used(budget)
        is_kept = marks.passed(before, step)
        due = _due(
            config.train,
            before,
            step,
            is_stopped=is_stopped,
            is_end=is_end,
            is_kept=is_kept,
            ends_phase=step == own.phase.end,
        )
        if due.log:
            # First: what metrics show is never decided on a second time.
            if budget:
                budget.write()
            step_log.flush()
        if due.growth:
            records.grow_batch(step)
        # How many steps a budget has time for is not known.
        progress("train", step, 0 if budget else config.train.steps)
        heldout = None
        if due.evaluation and own.evaluator:
            heldout = records.evaluate(step, state.params, own.evaluator)
        if due.checkpoint:
            records.save(step, state, heldout)
        # After the checkpoint, which must not be lost to a report.
        if heldout is not None:
            on_evaluation()
        if due.evaluation or due.checkpoint:
            step_log.restart_clock()  # the time of this work does not count as training
        # What is due is the same on all processes, so all ask or none does.
        stalled = due.evaluation and records.has_stalled()
        if is_stopped or is_end or stalled:
            break
    # Saves are asynchronous: this waits for the last one.
    checkpoints.close()
    if budget:
        budget.close(step)
    metrics.close()
    if stalled:
        records.log_early_stop(step)
    stopped = step < config.train.steps and not stalled and not _is_used(budget)
    return Outcome(step, stopped, metrics.evaluations)


def _is_used(budget: Budget | None) -> bool:
    return budget is not None and budget.is_used


class _Due(NamedTuple):
    """The work that is due after an update."""

    log: bool
    growth: bool
    evaluation: bool
    checkpoint: bool


def _due(
    train: TrainConfig,
    before: int,
    step: int,
    *,
    is_stopped: bool,
    is_end: bool,
    is_kept: bool,
    ends_phase: bool,
) -> _Due:
    """Return what is due after the update from step `before` to `step`.

    The run may be stopped there, or end; the checkpoint may be kept; a phase may end.
    """

    def passed(every: int) -> bool:
        # An update of several batches may jump over a multiple of `every`.
        return step // every > before // every

    is_last = is_stopped or is_end
    evaluation = is_end or passed(train.eval_every_steps)
    checkpoint = is_last or is_kept or passed(train.save_every_steps)
    growth = train.batch_size_schedule == "adaptive" and passed(train.batch_size_steps)
    # Metrics are written before three things that depend on them: an evaluation, which compares
    # with the training loss; a decision of the schedule; and a checkpoint, because steps before a
    # checkpoint are never run again. And before another phase, whose batches have another size.
    needs_metrics = is_last or evaluation or checkpoint or growth or ends_phase
    return _Due(needs_metrics or passed(train.log_every_steps), growth, evaluation, checkpoint)


class _Records:
    """The work of a run besides its updates: evaluations, checkpoints and decisions."""

    def __init__(
        self,
        config: Config,
        checkpoints: Checkpoints,
        metrics: MetricsLog,
        facts: Mapping[str, Any],
        budget: Budget | None,
    ):
        self._config, self._checkpoints, self._metrics = config, checkpoints, metrics
        self._budget = budget
        self._meta = {"config": to_dict(config), **facts, "versions": versions()}

    def enter(self, run: PhaseRun) -> None:
        """Keep records of this phase from now on."""
        self._run = run
        if self._config.phases:
            self._meta = {**self._meta, PHASE: run.phase.number}

    def evaluate(self, step: int, params: Params, evaluator: Evaluator) -> dict[str, float]:
        """Evaluate, write the metrics, warn if they show overfitting, and return them."""
        heldout = evaluator(params)
        self._metrics.write([{"step": step, "split": "validation", **heldout}])
        log.info("step %d: held-out %s", step, format_metrics(heldout))
        # Figures of another phase may be of other data, or of other masks.
        since = self._run.phase.begin
        if self._metrics.overfitting(self._config.train.overfit_evaluations, since=since):
            log.warning("step %d: overfitting: held-out loss rises while training loss falls", step)
        return heldout

    def misses_evaluation(self, start: int) -> bool:
        """Return True if the step at which a run resumes was evaluated and its figures are lost.

        That is where its checkpoint could be written and `metrics.jsonl` could not.
        """
        train = self._config.train
        is_due = start == train.steps or start % train.eval_every_steps == 0
        known = [entry["step"] for entry in self._metrics.evaluations]
        return start > 0 and is_due and start not in known

    def save(self, step: int, state: TrainState, heldout: dict[str, float] | None) -> None:
        """Start to write a checkpoint."""
        meta = self._meta
        if self._run.config.train.batch_size_schedule != "constant":
            meta = {**meta, BATCH_SIZE: self._run.schedule.state()}
        if self._budget:
            meta = {**meta, BUDGET: self._budget.meta()}
        # Without figures it cannot be the best: a denser model is not what was asked for.
        figures = heldout if is_reached(self._config, step) else None
        self._checkpoints.save(step, state, meta, figures)

    def grow_batch(self, step: int) -> None:
        """Double the batch if the gradient's noise allows it."""
        schedule = self._run.schedule
        if schedule.grow():
            log.info(
                "step %d: gradient noise scale %.0f, batch %d",
                step,
                schedule.noise_scale,
                schedule.batch_size(step),
            )

    def has_stalled(self) -> bool:
        """Return True if fine-tuning must stop early; the result is the same on every process.

        The first process decides, because only it reads and writes metrics.
        """
        options = self._config.finetune
        since = sparsity_schedule(self._config).end if options.makes_sparse else 0
        patience = options.early_stopping_patience
        return patience > 0 and hosts.agree(self._metrics.stalled(patience, since))

    def log_early_stop(self, step: int) -> None:
        """Log the reason why the run ends before its last step."""
        patience = self._config.finetune.early_stopping_patience
        log.info("step %d: ends early, no better for %d evaluations", step, patience)


def _log_start(config: Config, start: int, mesh: Mesh) -> None:
    verb = "resumes" if start else "starts"
    log.info("%s at step %d of %d; devices %s", verb, start, config.train.steps, mesh.shape)


def _announce_phase(config: Config, run: PhaseRun) -> None:
    """Say that a phase begins, or is gone on with, and that its program is compiled."""
    if not config.phases:
        announce_compilation("the train step")
        return
    phase = run.phase
    log.info(
        "phase %d of %d, steps %d to %d: %s",
        phase.number,
        len(config.phases),
        phase.begin,
        phase.end,
        config.phases[phase.number - 1] or "as configured",
    )
    announce_compilation(f"the train step of phase {phase.number}")


def _updates(runs: Sequence[PhaseRun], start: int) -> Iterator[tuple[PhaseRun, int, Batch]]:
    """Yield (phase, number of source batches, the batch made of them) for each update to the last.

    Raises `UserError` for ids that are not in the vocabulary: inside the step they would be clamped
    or give NaN. If something looks wrong in the first batch of a phase, it is logged.
    """
    step = start
    for run in runs:
        if run.phase.end <= start:
            continue
        # The source starts at the batch of this step; earlier batches are not read again.
        batches, first = run.source.train(step, run.row_indices), step
        while step < run.phase.end:
            count = run.schedule.batches_at(step)
            batch = interleave([next(batches) for _ in range(count)])
            check_ids(batch, run.config.model.vocab_size)
            if step == first:
                for warning in run.source.inspect(batch):
                    log.warning("first batch: %s", warning)
            yield run, count, batch
            step += count


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal has its usual effect."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        stop.set()
        # For SIGINT too: the runtime takes SIGTERM alone for a notice to stop.
        hosts.forward_signal(signal.SIGTERM)
        signal.signal(number, before[number])

    # Only the main thread may set handlers; in other threads signals keep their usual effect.
    if threading.current_thread() is threading.main_thread():
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            before[signal_number] = signal.signal(signal_number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # The scheduler may send SIGTERM to this host later than to the host that ended the run.
        # This must not kill this process while the others wait for it.
        hosts.leave_sigterm_to_runtime()
