"""Files that TensorFlow writes, moved complete to a folder, or copied complete to a store."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from bertjax.errors import UserError, disk_errors, one_line
from bertjax.storage import CHUNK_BYTES, is_local, written_whole


@contextmanager
def tensorflow_output(folder: epath.Path, last: str) -> Iterator[Path]:
    """Yield a local folder to write to; its files are moved to `folder` after the block.

    The file with the name `last`, without which readers see nothing in `folder`, is moved last.
    TensorFlow alone would leave an incomplete file if the disk is full, and it does not support
    s3://. Its errors, and those of the operating system, become a `UserError` that names `folder`.
    """
    import tensorflow as tf

    with disk_errors(folder), _temporary_folder(folder) as local:
        try:
            yield Path(local)
        except tf.errors.OpError as error:
            raise UserError(f"{folder}: cannot be written ({one_line(error)})") from error
        files = [file for file in Path(local).rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file.name == last):
            _move(file, folder / str(file.relative_to(local)))


def _temporary_folder(folder: epath.Path) -> tempfile.TemporaryDirectory[str]:
    if not is_local(folder):
        return tempfile.TemporaryDirectory()
    # Beside it: files can be renamed, and in a part folder nothing is left of it after a kill.
    parent = Path(folder).parent
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=parent)


def _move(file: Path, target: epath.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as content:
        if is_local(target):
            os.fsync(content.fileno())  # as `written_whole` does
            file.replace(target)
        else:
            with written_whole(target) as copy:
                shutil.copyfileobj(content, copy, CHUNK_BYTES)
