"""Files that TensorFlow writes, copied complete to a local folder or to a store."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from bertjax.errors import UserError, disk_errors, one_line
from bertjax.storage import written_whole

COPY_BYTES = 1 << 24  # copied at a time, so that weights are not in memory twice


@contextmanager
def tensorflow_output(folder: epath.Path, last: str) -> Iterator[Path]:
    """Yield a local folder to write to; its files are copied to `folder` after the block.

    The file with the name `last`, without which readers see nothing in `folder`, is copied last.
    TensorFlow alone would leave an incomplete file if the disk is full, and it does not support
    s3://. Its errors, and those of the operating system, become a `UserError` that names `folder`.
    """
    import tensorflow as tf

    with disk_errors(folder), tempfile.TemporaryDirectory() as local:
        try:
            yield Path(local)
        except tf.errors.OpError as error:
            raise UserError(f"{folder}: cannot be written ({one_line(error)})") from error
        _copy(Path(local), folder, last)


def _copy(source: Path, folder: epath.Path, last: str) -> None:
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.name == last):
        target = folder / str(file.relative_to(source))
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as content, written_whole(target) as copy:
            shutil.copyfileobj(content, copy, COPY_BYTES)
