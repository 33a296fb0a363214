"""Write predictions to files, in the formats that are usual for each kind of task."""

import glob
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import check, disk_errors
from bertjax.storage import UNFINISHED, folder_lock, is_local
from bertjax.storage.outputs import errors_that_name
from bertjax.tasks.kind import PredictedSplit
from bertjax.tasks.registry import KINDS


@contextmanager
def predictions_held(folder: epath.Path, split: str) -> Iterator[None]:
    """Hold the lock of the predictions for `split`, with its parts, in `folder`.

    What a kill left of them is removed first. Raises `UserError` if another process holds it.
    """
    with folder_lock(folder / split, "predict", beside=True):
        # With the length of the random part: the name of another split may begin with this one's.
        for left in folder.glob(f".{glob.escape(split)}.{'?' * 32}{UNFINISHED}"):
            left.rmtree()
        yield


def write_predictions(
    folder: epath.Path,
    splits: Sequence[PredictedSplit[Any, Any]],
    options: FinetuneConfig,
    *,
    held: str = "",
) -> list[list[epath.Path]]:
    """Write the predictions for splits into `folder`, made if it is absent; return their files.

    `held` is the split whose lock the caller holds (`predictions_held`), if any.

    The files are named `TASK-SPLIT.ENDING`, and further ones `TASK-SPLIT-PART.ENDING`; only files
    to submit to GLUE have the names that it prescribes. `Kind.write_predictions` of each kind of
    task describes its formats. All files are complete before the first one gets its name; older
    files of these names are replaced.

    Raises `UserError` if two files would have one name, or if a file would replace data of a task.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made: list[list[epath.Path]] = []
    with _unfinished(folder, held) as unfinished, errors_that_name(folder, unfinished):
        taken: set[str] = set()
        for split in splits:
            paths = KINDS[split.entry.kind].write_predictions(unfinished, split, options)
            for path in paths:
                _check_name(folder / path.name, split, taken)
                taken.add(path.name)
            made.append(paths)
        with disk_errors(folder):
            return [[path.replace(folder / path.name) for path in paths] for paths in made]


@contextmanager
def _unfinished(folder: epath.Path, held: str) -> Iterator[epath.Path]:
    """Make a folder for files that are not complete; it is removed after the block.

    Its name is its own, so that two predictions into one folder do not write into each other's
    files.
    """
    path = folder / f".{held}.{uuid.uuid4().hex}{UNFINISHED}"
    with disk_errors(folder):
        path.mkdir()
    try:
        yield path
    finally:
        # In a store a folder is gone with its last file.
        if path.exists():
            path.rmtree()


def _check_name(path: epath.Path, split: PredictedSplit[Any, Any], taken: set[str]) -> None:
    """Raise `UserError` if `path` is already `taken`, or is one of the task's own files."""
    check(
        path.name not in taken,
        where=str(path),
        found="predictions of two splits",
        expected="tasks and files of different names",
    )
    location = split.entry.location
    # Only given files: those of usual names, such as test.tsv, do not begin with a task's name.
    given = {_real(epath.Path(location.path) / name) for name in chain(*location.files.values())}
    check(
        location.is_tfds or _real(path) not in given,
        where=str(path),
        found="a file of the task's data",
        expected="another folder for the predictions",
    )


def _real(path: epath.Path) -> str:
    """Return the path without links, so that two paths of one file are equal."""
    return os.path.realpath(path) if is_local(path) else os.fspath(path)
