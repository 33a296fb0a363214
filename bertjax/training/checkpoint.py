"""Checkpoints of a run, written with Orbax as `RUN/checkpoints/STEP/{state, meta}`.

`state` has the fields of the `TrainState`. `meta` is JSON: the resolved configuration, the
fingerprints of the tokenizer and of the prepared data, and the versions of the packages that wrote
it. Both have digests, which every reader compares (`bertjax.training.integrity`).
"""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from bertjax.config import Config, from_dict
from bertjax.config.phases.kept import Marks
from bertjax.config.phases.resolution import phases_of
from bertjax.errors import UserError, check, mismatch
from bertjax.given_files import place_of
from bertjax.storage import exact_version_of, guards_of, is_local, read_json
from bertjax.storage.output_record import check_whole
from bertjax.training.checkpoint_files import (
    checkpoint_errors,
    compare,
    shapes_by_name,
    steps_in,
)
from bertjax.training.integrity.record import META, SCORE, STATE, check_score, with_own_digest
from bertjax.training.integrity.record import read_meta as read_meta
from bertjax.training.integrity.restoring import restore_params as restore_params
from bertjax.training.integrity.restoring import restore_state, saved_shapes
from bertjax.training.integrity.state_handler import StateHandler
from bertjax.training.step import TrainState

FOLDER = "checkpoints"
PHASE = "phase"
"""Field of `meta` with the number of the phase whose update led to the checkpoint."""
# File in which a run that is evaluated at its end, such as fine-tuning, names its best checkpoint.
RESULT = "result.json"


def _score(metrics: dict[str, float]) -> float:
    """Return the number that is highest for the best checkpoint."""
    return metrics["score"] if "score" in metrics else -metrics["mlm_loss"]


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, the best by `score` or masked-word loss, and
    those at `marks`.

    Of equally good ones the latest is kept.

    Saving is asynchronous. A checkpoint gets its final name only when it is complete, so an
    incomplete one is never restored. In a run of several processes, each process writes and reads
    the parts of its own devices, and all must call each method with the same arguments.
    """

    def __init__(self, run_dir: epath.Path, keep: int, marks: Marks | None = None):
        self.folder = (run_dir / FOLDER).resolve()  # Orbax takes absolute paths only
        keep_latest = policies.LatestN(keep)
        # Without metrics a checkpoint is left to the other policy: else each one would be kept
        # here.
        keep_best = policies.BestN(
            get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
        )
        kept: list[policies.PreservationPolicy] = [keep_latest, keep_best]
        if marks is not None:
            kept.append(AtMarks(marks))
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,
            preservation_policy=policies.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,  # what is left of a save that was interrupted
            # By default a thread makes the folders. Where that is refused, the threads that write
            # into them wait for it another 300 s, and the process with them.
            async_options=ocp.AsyncOptions(
                create_directories_asynchronously=False,
                # Called right before a checkpoint gets its name.
                post_finalization_callback=self._check_locks,
            ),
        )
        self._locks = guards_of(self.folder)
        registry = ocp.DefaultCheckpointHandlerRegistry()
        self._handler = StateHandler()
        registry.add("state", ocp.args.PyTreeSave, self._handler)
        registry.add("meta", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
        self._saving = False
        """True from a save on until it is known how it ended."""
        with checkpoint_errors(self.folder):
            self._manager = ocp.CheckpointManager(
                self.folder, options=options, handler_registry=registry
            )

    def latest(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: TrainState | dict[str, Any],
        meta: dict[str, Any],
        heldout: dict[str, float] | None,
    ) -> None:
        """Start to write a checkpoint.

        `heldout` has the metrics of a held-out evaluation at this step. It is None if there was no
        evaluation; then the checkpoint cannot become the best.
        """
        metrics = None if heldout is None else {"score": _score(heldout)}
        if metrics is not None:
            meta = {**meta, SCORE: metrics["score"]}
        saved = state.by_field() if isinstance(state, TrainState) else state
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(saved), meta=ocp.args.JsonSave(with_own_digest(meta))
        )
        self._check_locks()
        with checkpoint_errors(self.folder), self._handler.saving():
            # Forced, because the loop decides when to save (also at the last step), not Orbax.
            self._manager.save(step, args=args, metrics=metrics, force=True)
        self._saving = True

    def restore(self, step: int, target: TrainState) -> TrainState:
        """Return the state at `step`, with the shardings of `target`.

        `target` is a tree of `jax.ShapeDtypeStruct`, as `abstract_state` returns it. Raises the
        errors of `restore_state`.
        """
        return restore_state(self.folder / str(step), target)

    def check(self) -> None:
        """Raise the `UserError` of `wait` where a save has ended and failed; do not wait.

        And where the folder's lock was lost.
        """
        if any(lock.lost for lock in self._locks):
            self._check_locks()
        if self._saving and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Wait until all saves are complete; raise `UserError` if one could not be written."""
        with checkpoint_errors(self.folder):
            self._manager.wait_until_finished()
        self._saving = False

    def close(self) -> None:
        """Wait until all saves are complete, and end the manager's threads."""
        self.wait()
        self._manager.close()

    def _check_locks(self) -> None:
        """Raise `UserError` where this process has lost the lock of the run's folder."""
        for lock in self._locks:
            lock.check()


class AtMarks(policies.PreservationPolicy):
    """The policy, for Orbax, of the checkpoints at the marks of a run."""

    def __init__(self, marks: Marks):
        self._marks = marks

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Return whether each checkpoint is kept."""
        return self._marks.kept([info.step for info in checkpoints])


def versions() -> dict[str, str]:
    """Return the versions of the packages that write a checkpoint, for its `meta`."""
    packages = ("bertjax", "jax", "flax", "optax", "orbax-checkpoint")
    return {name: importlib.metadata.version(name) for name in packages}


def has_checkpoint(run_dir: epath.Path) -> bool:
    """Return True if a run has a complete checkpoint."""
    return bool(steps_of(run_dir))


def steps_of(run_dir: epath.Path) -> list[int]:
    """Return the steps of a run's complete checkpoints, ascending.

    Raises `UserError` for a run that `import` or `grow` has not written whole.
    """
    check_whole(run_dir)
    return steps_in(run_dir / FOLDER)


def check_records(run_dir: epath.Path) -> None:
    """Raise `DamagedCheckpointError` for the newest checkpoint whose records are damaged.

    Opening `Checkpoints` reads them of every checkpoint. Arrays are compared when they are read.
    """
    for step in reversed(steps_of(run_dir)):
        check_score(run_dir / FOLDER / str(step))


def kept_checkpoint(run_dir: epath.Path, step: int) -> epath.Path:
    """Return the folder of the checkpoint of a step; `UserError` with the nearest if there is none.

    Raises `UserError` for a run without checkpoints, too.
    """
    steps = steps_of(run_dir)
    check(len(steps) > 0, where=str(run_dir), found="no checkpoint", expected="one or more")
    closest = min(steps, key=lambda each: abs(each - step))
    check(
        step in steps,
        where=f"{run_dir}: step {step}",
        found="no checkpoint",
        expected=f"one of {', '.join(map(str, steps))}; the nearest is {closest}",
    )
    return run_dir / FOLDER / str(step)


def newest_checkpoint(run_dir: epath.Path) -> epath.Path | None:
    """Return the folder of a run's newest complete checkpoint; None if it has none."""
    steps = steps_of(run_dir)
    return run_dir / FOLDER / str(steps[-1]) if steps else None


def find_checkpoint(path: epath.PathLike) -> tuple[epath.Path, epath.Path]:
    """Return (run folder, checkpoint folder) of a run or of one of its checkpoints.

    For a run, the checkpoint is the one that `result.json` names or, without this file, the newest.
    Raises `UserError` if `path` is neither a run nor a checkpoint.
    """
    path = place_of(path)
    if is_local(path):
        path = path.resolve()
    if (path / STATE).exists():
        check_whole(path.parent.parent)
        return path.parent.parent, path
    if (path / RESULT).exists():
        check_whole(path)
        step = read_json(path / RESULT).get("step")
        best = path / FOLDER / str(step)
        check(
            best.exists(),
            where=str(path / RESULT),
            found=f"the step {step}, whose checkpoint is not there",
            expected="one that is",
        )
        return path, best
    # During training there is no result.json yet; then the newest checkpoint is used.
    newest = newest_checkpoint(path)
    if newest is None:
        raise mismatch(
            where=str(path),
            found="no checkpoint",
            expected=f"a run folder with {FOLDER}/STEP, or such a STEP folder",
        )
    return path, newest


def version_of_checkpoint(folder: epath.Path) -> list[str]:
    """Return what tells whether a checkpoint is still the same; raise the errors of `read_meta`."""
    read_meta(folder)
    return [str(folder), exact_version_of(folder.joinpath(*META))]


def read_checkpoint_config(folder: epath.Path) -> Config:
    """Return the resolved configuration in a checkpoint folder's `meta`.

    In a run with phases it is that of the checkpoint's phase. Raises `UserError` where it is
    missing or cannot be read.
    """
    return read_phase_configs(folder)[-1]


def read_phase_configs(folder: epath.Path) -> tuple[Config, ...]:
    """Return the resolved configurations of a run's phases, up to that of a checkpoint folder.

    It is one if the run has no phases. Raises as `read_checkpoint_config` does.
    """
    try:
        meta = read_meta(folder)
        config = from_dict(Config, meta["config"])
        if not config.phases:
            return (config,)
        phases = phases_of(config)
        newest = phases[meta[PHASE] - 1].number
        return tuple(phase.config for phase in phases if phase.number <= newest)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{folder}/meta: cannot be read ({type(error).__name__}: {error})"
        ) from error


def check_params(
    where: epath.Path, target: Any, ignored_groups: Sequence[str] = (), *, saved: Any = None
) -> None:
    """Raise the `UserError` of `restore_params` for a folder, without reading a number.

    `saved` is the tree of parameters that will be saved in `where`, if they are not there yet.
    """
    ignored = tuple(f"params/{group}/" for group in ignored_groups)
    shapes = saved_shapes(where) if saved is None else shapes_by_name({"params": saved})
    compare(where, shapes, {"params": target}, ignored)
