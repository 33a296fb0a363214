"""The training loop, on any source of batches: mesh, state, restore, steps."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config, Head, to_dict
from bertjax.data.batch_checks import check_ids
from bertjax.model.functional import DONOR, TASKS
from bertjax.model.kernels import selection as kernels
from bertjax.parallel import hosts, rules
from bertjax.parallel.mesh import make_mesh
from bertjax.progress import Progress, silent
from bertjax.training import checkpoint
from bertjax.training import run_config as run_folder
from bertjax.training.batch_source import Feed
from bertjax.training.logs.metrics_log import MetricsLog
from bertjax.training.logs.step_log import BATCH_SIZE, Ledger, Update, spoken
from bertjax.training.objective import Objective
from bertjax.training.optimization.batch_schedule import BatchSize
from bertjax.training.pretraining import check_heads, pretraining
from bertjax.training.step import TrainState, abstract_state, check_batch, jit_init, jit_train_step
from bertjax.types import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: at which step, and whether a signal stopped it before its last."""

    step: int
    stopped: bool


def train(
    config: Config,
    run_dir: epath.PathLike,
    feed: Feed,
    objective: Objective | None = None,
    *,
    progress: Progress = silent,
    on_evaluation: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train `config` in `run_dir`, from the newest checkpoint there if there is one.

    The objective is pretraining unless given. `on_evaluation` is called after each held-out
    evaluation, when metrics are on the disk. SIGTERM and SIGINT end the run after the step in hand,
    saved; of a run of several processes, where one of them is told so, all end after the same step.

    Of several processes all call this with the same arguments, and the first one writes what all
    share.

    The order of starting:
    1. A checkpoint in the run folder always wins.
    2. Else the parameters of `config.init_from`, with a new optimizer at step 0.
    3. Else new parameters from `config.seed`.
    """
    if objective is None:
        check_heads(config)
        objective = pretraining(config, feed.vocabulary)
    with _signals() as stop:
        return _train(config, epath.Path(run_dir), feed, objective, progress, on_evaluation, stop)


def _train(
    config: Config,
    run_dir: epath.Path,
    feed: Feed,
    objective: Objective,
    progress: Progress,
    on_evaluation: Callable[[], object],
    stop: threading.Event,
) -> Outcome:
    # Mesh and layout
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    _warn_of_kernels(config, rules.MeshLayout(mesh))
    target = abstract_state(config, mesh, objective)
    rows = hosts.process_rows(mesh, config.train.batch_size)
    run_folder.claim(run_dir, config, feed.facts)

    # State, born sharded or restored
    checkpoints = checkpoint.Checkpoints(run_dir, config.train.keep_checkpoints)
    state = _start(config, mesh, objective, checkpoints, target)
    start = int(state.step)
    metrics = MetricsLog(run_dir, start, writes=hosts.is_first())
    log.info(
        "%s at step %d of %d; devices %s",
        "resumes" if start else "starts",
        start,
        config.train.steps,
        mesh.shape,
    )

    # Programs
    train_step = jit_train_step(config, mesh, objective)
    examine = feed.examine(config, mesh) if feed.examine else None
    meta = {"config": to_dict(config), **feed.facts, "versions": checkpoint.versions()}
    sizes = BatchSize(config.train, _sizes_known(checkpoints, start))
    ledger = Ledger(config, run_dir, metrics, sizes)

    def hold_out(step: int) -> dict[str, float] | None:
        if examine is None:
            return None
        found = examine(state.params)
        metrics.write([{"step": step, "split": "validation", **found}])
        log.info("step %d: held-out %s", step, spoken(found))
        if metrics.overfitting(config.train.overfit_evaluations):
            log.warning("step %d: overfitting: held-out loss rises while training loss falls", step)
        on_evaluation()
        return found

    def has_stalled() -> bool:
        patience = config.finetune.early_stopping_patience
        return patience > 0 and hosts.from_first(str(metrics.stalled(patience))) == "True"

    # Loop
    step, last, stalled = start, False, start > 0 and has_stalled()
    batches = () if stalled else _checked(config, feed, rows, start, sizes)
    for update, (taken, batch) in enumerate(batches, 1):
        before, step = step, step + taken
        passes = partial(_passes, before, step)
        state, scalars = train_step(
            state, hosts.global_batch(mesh, batch, taken * config.train.batch_size)
        )
        ledger.add(Update(step, taken, scalars, batch))
        last = hosts.should_stop_after(update, stop.is_set()) or step == config.train.steps
        evaluates = step == config.train.steps or passes(config.train.eval_every_steps)
        saves = last or passes(config.train.save_every_steps)
        decides = config.train.batch_size_schedule == "adaptive" and passes(
            config.train.batch_size_steps
        )
        if last or evaluates or saves or decides or passes(config.train.log_every_steps):
            ledger.flush()
        if decides and sizes.decide():
            log.info(
                "step %d: gradient noise scale %.0f, batch %d",
                step,
                sizes.noise_scale,
                sizes.rows(step),
            )
        progress("train", step, config.train.steps)
        found = hold_out(step) if evaluates else None
        if saves:
            grown = (
                {BATCH_SIZE: sizes.state()}
                if config.train.batch_size_schedule != "constant"
                else {}
            )
            checkpoints.save(step, state, {**meta, **grown}, found)
        if evaluates or saves:
            ledger.restart_clock()
        stalled = bool(evaluates) and has_stalled()
        if last or stalled:
            break
    checkpoints.close()
    metrics.close()
    if stalled:
        log.info(
            "step %d: ends early, no better for %d evaluations",
            step,
            config.finetune.early_stopping_patience,
        )
    return Outcome(step, stopped=step < config.train.steps and not stalled)


def _warn_of_kernels(config: Config, layout: rules.MeshLayout) -> None:
    missing = {
        what
        for length in config.row_lengths
        for what in kernels.missing(config.model, length, layout)
    }
    if missing:
        named = " nor ".join(sorted(missing))
        log.warning(
            "model.kernels %s: not for %s here, computed as xla", config.model.kernels, named
        )


def _start(
    config: Config,
    mesh: Mesh,
    objective: Objective,
    checkpoints: checkpoint.Checkpoints,
    target: TrainState,
) -> TrainState:
    latest = checkpoints.latest()
    if latest is not None:
        return checkpoints.restore(latest, target)
    init, init_optimizer = jit_init(config, mesh, objective)
    state = init()
    if not config.init_from:
        return state
    _, folder = checkpoint.find(config.init_from)
    log.info(
        "parameters from %s%s",
        folder,
        f", new heads: {', '.join(config.new_heads)}" if config.new_heads else "",
    )
    kept = {
        group: leaves
        for group, leaves in target.params.items()
        if group not in (*config.new_heads, TASKS)
    }
    forgotten = [head for head in (*get_args(Head), TASKS) if head not in kept]
    restored = checkpoint.restore_params(folder, kept, forgotten)
    if config.finetune.decoder_from:
        _, donor = checkpoint.find(config.finetune.decoder_from)
        restored[DONOR] = checkpoint.restore_params(donor, kept, forgotten)
    params = objective.begin(state.params, restored)
    params = jax.tree.map(
        lambda leaf, laid: jax.device_put(leaf, laid.sharding), params, target.params
    )
    return TrainState(state.step, params, init_optimizer(params))


def _passes(before: int, step: int, every: int) -> bool:
    """Whether a multiple of `every` lies after `before`, up to `step`."""
    return step // every > before // every


def _sizes_known(checkpoints: checkpoint.Checkpoints, start: int) -> Any:
    return checkpoint.read_meta(checkpoints.folder / str(start)).get(BATCH_SIZE) if start else None


def _checked(
    config: Config, feed: Feed, rows: np.ndarray, start: int, sizes: BatchSize
) -> Iterator[tuple[int, Batch]]:
    """The batches of updates up to the last step, and how many of the feed's each is made of; each
    one's ids within the vocabulary, the first looked at closely.
    """
    batches, step = feed.train(start, rows), start
    while step < config.train.steps:
        taken = sizes.times(step)
        batch = _together([next(batches) for _ in range(taken)])
        check_ids(batch, config.model.vocab_size)
        if step == start:
            for warning in feed.inspect(batch):
                log.warning("first batch: %s", warning)
        yield taken, batch
        step += taken


def _together(batches: list[Batch]) -> Batch:
    """One batch, rows of each by turns: so the rows that a process holds are of it what they were
    of each.
    """
    if len(batches) == 1:
        return batches[0]
    stacked = {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in stacked.items()}


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal has its usual effect."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        stop.set()
        hosts.forward_signal(signal.SIGTERM)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # A host may be told to end when another's word has already ended the run.
        hosts.leave_sigterm_to_runtime()
