"""Checkpoints of a run, by Orbax: `RUN/checkpoints/STEP/{state, meta}`.

`state` is the `TrainState`; `meta` is JSON: the resolved configuration, the tokenizer's
fingerprint, the prepared data's, and versions.
"""

import errno
import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from bertjax.config import Config, from_dict
from bertjax.errors import UserError, check
from bertjax.parallel.failures import is_lost_contact
from bertjax.storage import read_json
from bertjax.training.step import TrainState

FOLDER = "checkpoints"
# of a run that is finished, if it is to say which checkpoint is the one that counts
RESULT = "result.json"
TENSORSTORE_STATUS = re.compile(
    r"[A-Z_]+: "
)  # how the text of its errors begins, of whatever type they are


def _score(metrics: dict[str, float]) -> float:
    """What the best checkpoint has most of."""
    return metrics["score"] if "score" in metrics else -metrics["mlm_loss"]


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, and the best by held-out score or masked-word
    loss.

    Saving is asynchronous. A checkpoint gets its final name only when it is whole, so
    one that a kill cut short is never restored. Of several processes each writes and reads
    the parts of its devices, and all call each method alike.
    """

    def __init__(self, run_dir: epath.Path, keep: int):
        self.folder = (run_dir / FOLDER).resolve()  # Orbax takes absolute paths only
        keep_latest = policies.LatestN(keep)
        keep_best = policies.BestN(
            get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,
            preservation_policy=policies.AnyPreservationPolicy([keep_latest, keep_best]),
            cleanup_tmp_directories=True,
        )
        with _disk_errors(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: TrainState | dict[str, Any],
        meta: dict[str, Any],
        heldout: dict[str, float] | None,
    ) -> None:
        """Start to write a checkpoint, its held-out metrics with it if it was evaluated at this
        step.
        """
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        metrics = None if heldout is None else {"score": _score(heldout)}
        with _disk_errors(self.folder):
            self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The state at `step`, laid out as `target`: a tree of `ShapeDtypeStruct` with shardings.

        Raises `UserError` where names, shapes or types differ from the target's.
        """
        folder = self.folder / str(step)
        _check_shapes(folder, target)
        with _disk_errors(folder):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
            )
        return restored["state"]

    def wait(self) -> None:
        """Return when what was being saved is whole; raises `UserError` if it could not be written."""
        with _disk_errors(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the manager's threads."""
        self.wait()
        self._manager.close()


def versions() -> dict[str, str]:
    """What wrote a checkpoint, for its `meta`."""
    return {
        name: importlib.metadata.version(name)
        for name in ("bertjax", "jax", "flax", "optax", "orbax-checkpoint")
    }


def has_any(run_dir: epath.Path) -> bool:
    """Whether a run has a whole checkpoint."""
    return bool(steps_of(run_dir))


def steps_of(run_dir: epath.Path) -> list[int]:
    """Return the steps of a run's whole checkpoints, ascending."""
    return _steps(run_dir / FOLDER)


def _steps(folder: epath.Path) -> list[int]:
    """The steps of the whole checkpoints in a folder, ascending; none where it is not there."""
    return (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    )


def find(path: epath.PathLike) -> tuple[epath.Path, epath.Path]:
    """(run folder, checkpoint folder) of a run (the checkpoint that `result.json` names, or its
    newest) or of one.

    Raises `UserError` when `path` is neither.
    """
    path = epath.Path(path).resolve()
    if (path / "state").exists():
        return path.parent.parent, path
    if (path / RESULT).exists():
        step = read_json(path / RESULT).get("step")
        best = path / FOLDER / str(step)
        check(
            best.exists(),
            where=str(path / RESULT),
            found=f"the step {step}, whose checkpoint is not there",
            expected="one that is",
        )
        return path, best
    steps = _steps(path / FOLDER)
    check(
        steps,
        where=str(path),
        found="no checkpoint",
        expected=f"a run folder with {FOLDER}/STEP, or such a STEP folder",
    )
    return path, path / FOLDER / str(steps[-1])


def read_meta(folder: epath.Path) -> dict[str, Any]:
    """A checkpoint's `meta`."""
    return read_json(folder / "meta" / "metadata")


def read_config(folder: epath.Path) -> Config:
    """The resolved configuration that a checkpoint's `meta` holds."""
    try:
        return from_dict(Config, read_meta(folder)["config"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}/meta: cannot be read ({type(error).__name__}: {error})"
        ) from error


def restore_params(
    folder: epath.Path, target: Any, forgotten: Sequence[str] = (), *, cast: bool = False
) -> Any:
    """The parameters alone of a checkpoint folder, laid out as `target` (`ShapeDtypeStruct` with
    shardings).

    Each device's part alone is read. With `cast` it is turned into the target's type as it is read:
    float32 into bfloat16, say.

    Raises `UserError` where names, shapes or (without `cast`) types differ from the target's, or
    the checkpoint has tensors beyond it that are in none of the `forgotten` groups (`mlm`, say).
    """
    _check_shapes(
        folder, {"params": target}, tuple(f"params/{group}/" for group in forgotten), cast
    )
    args = ocp.args.PyTreeRestore(
        item={"params": target},
        restore_args={"params": ocp.checkpoint_utils.construct_restore_args(target)},
        partial_restore=True,
    )
    with _disk_errors(folder), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(folder / "state", args=args)["params"]


def _check_shapes(
    folder: epath.Path, target: Any, forgotten: tuple[str, ...] = (), cast: bool = False
) -> None:
    with _disk_errors(folder), ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder / "state").item_metadata
    check(
        metadata is not None,
        where=f"{folder}/state",
        found="no readable list of tensors",
        expected="a whole checkpoint",
    )
    saved = metadata.tree
    found = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in _named(saved).items()}
    whole = any(name.startswith("opt_state") for name in found) or not isinstance(
        target, TrainState
    )
    check(
        whole,
        where=str(folder),
        found="parameters alone",
        expected="an optimizer's state too (another --run-dir, from it by --init-from)",
    )
    for name, leaf in _named(target).items():
        shape, dtype = found.get(name, (None, None))
        check(
            shape is not None,
            where=f"{folder}: {name}",
            found="no such tensor",
            expected=f"shape {list(leaf.shape)}",
        )
        check(
            shape == leaf.shape,
            where=f"{folder}: {name}",
            found=f"shape {list(shape or ())}",
            expected=f"shape {list(leaf.shape)}",
        )
        check(
            cast or dtype == leaf.dtype,
            where=f"{folder}: {name}",
            found=dtype,
            expected=str(leaf.dtype),
        )
    prefixes = {name.split("/")[0] for name in _named(target)}
    extra = sorted(
        name for name in found if name.split("/")[0] in prefixes and name not in _named(target)
    )
    extra = [name for name in extra if not name.startswith(forgotten)]
    check(
        not extra,
        where=str(folder),
        found=f"the tensor {extra[0] if extra else ''}",
        expected="none of that name",
    )


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@contextmanager
def _disk_errors(folder: epath.Path) -> Iterator[None]:
    """Turn what the file system refuses into one line; Orbax and TensorStore raise it in many
    types.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if is_lost_contact(error):
            raise
        full = (
            isinstance(error, OSError) and error.errno == errno.ENOSPC
        ) or "No space left" in str(error)
        if full:
            kept = f"whole checkpoints there: {', '.join(map(str, _steps(folder))) or 'none'}"
            raise UserError(
                f"{folder}: the disk is full, the checkpoint was not written ({kept})"
            ) from error
        if isinstance(error, OSError) or TENSORSTORE_STATUS.match(str(error)):
            raise UserError(
                f"{folder}: cannot be read or written ({' '.join(str(error).split())[:300]})"
            ) from error
        raise
