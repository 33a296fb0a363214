"""What is in the folders of checkpoints: steps, shapes of tensors; and errors of the disk."""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from etils import epath

from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.parallel.failures import is_lost_contact
from bertjax.training.step import TrainState

# Beginning of the texts of TensorStore's errors, whose types are ordinary Python errors.
TENSORSTORE_STATUS = re.compile(r"[A-Z_]+: ")
ShapeAndType = tuple[tuple[int, ...], np.dtype]


def steps_in(folder: epath.Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, ascending."""
    if not folder.exists():
        return []
    # Orbax writes to STEP.orbax-checkpoint-tmp and renames the folder when it is done. The steps
    # are sorted as numbers: a folder is listed in any order, and as text 10 comes before 9.
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def compare(
    folder: epath.Path,
    saved: Mapping[str, ShapeAndType],
    target: Any,
    ignored: tuple[str, ...],
    *,
    cast: bool = False,
) -> None:
    """Compare the tensors that `folder` has, or will have, with those of `target`.

    This gives a one-line error that names the tensor, which Orbax's own errors do not. `ignored`
    are prefixes of the names that the checkpoint may have in addition to those of the target.
    Raises `UserError`.
    """
    if isinstance(target, TrainState):
        check(
            any(name.startswith("opt_state") for name in saved),
            where=str(folder),
            found="parameters alone",
            expected="an optimizer's state too (another --run-dir, from it by --init-from)",
        )
    expected = by_name(target)
    for name, leaf in expected.items():
        where = f"{folder}: {name}"
        if name not in saved:
            raise mismatch(
                where=where, found="no such tensor", expected=f"shape {list(leaf.shape)}"
            )
        shape, dtype = saved[name]
        check(
            shape == leaf.shape,
            where=where,
            found=f"shape {list(shape)}",
            expected=f"shape {list(leaf.shape)}",
        )
        check(cast or dtype == leaf.dtype, where=where, found=dtype, expected=str(leaf.dtype))
    groups = {name.split("/")[0] for name in expected}
    for name in sorted(saved):
        if name.split("/")[0] not in groups or name in expected or name.startswith(ignored):
            continue
        raise mismatch(where=str(folder), found=f"the tensor {name}", expected="none of that name")


def shapes_by_name(tree: Any) -> dict[str, ShapeAndType]:
    """Return shape and type of the leaves of a tree by their names."""
    leaves = by_name(tree)
    return {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in leaves.items()}


def by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their names, `params/…/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@contextmanager
def checkpoint_errors(folder: epath.Path) -> Iterator[None]:
    """Turn errors of the file system into a `UserError` of one line.

    Orbax and TensorStore raise these errors as many different types.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # Not the disk's fault: `bertjax.parallel.failures` names the process that is gone.
        if is_lost_contact(error):
            raise
        if _is_disk_full(error):
            kept = f"whole checkpoints there: {', '.join(map(str, steps_in(folder))) or 'none'}"
            raise UserError(
                f"{folder}: the disk is full, the checkpoint was not written ({kept})"
            ) from error
        if isinstance(error, OSError) or TENSORSTORE_STATUS.match(str(error)):
            text = one_line(error)
            raise UserError(f"{folder}: cannot be read or written ({text})") from error
        raise


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    # TensorStore's errors have the system's text and no errno.
    return "No space left" in str(error)
