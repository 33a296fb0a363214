"""Files that appear whole or not at all, on a local disk or in a store (gs://, s3://)."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from etils import epath

from bertjax.errors import UserError, check, disk_errors, one_line

# Set before epath opens its first path. By default epath uses TensorFlow for gs:// and s3://, which
# takes seconds to import and cannot read s3://. Without TensorFlow it uses fsspec, whose cache of
# folder listings would hide files that other processes write, so that cache is off.
os.environ.setdefault("EPATH_USE_TF", "false")
for _store in ("S3", "GS"):
    os.environ.setdefault(f"FSSPEC_{_store}_USE_LISTINGS_CACHE", "false")

CHUNK_BYTES = 1 << 24
"""Size of the parts in which a file is copied, 16 MiB; a copy needs this much memory."""


def _open_gzip(file: IO[bytes]) -> IO[bytes]:
    # By name: the first parameter of `GzipFile` is a path, unlike those of the other two.
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]


OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
"""Decompressors by the ending of a file; what they return can be read only from the beginning."""


@contextmanager
def written_whole(path: epath.Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it gets the name `path` after the block, when it is on the disk.

    If the block fails, nothing is left of the file. Raises `UserError`, naming `path`, if it cannot
    be written.
    """
    # In the same folder, since a rename is atomic only within one file system.
    unfinished = path.parent / f"{path.name}.unfinished"
    with disk_errors(path):
        try:
            with unfinished.open("wb") as file:
                yield file
                # A file of a store has no descriptor to sync; it appears when its upload is
                # complete.
                if is_local(path):
                    # Before the rename; otherwise, after a power failure, the file could have its
                    # name but not its content.
                    file.flush()
                    os.fsync(file.fileno())
            unfinished.replace(path)
        # Ctrl-C must leave nothing either, and KeyboardInterrupt is no Exception.
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def write_whole(path: epath.Path, content: bytes) -> None:
    """Write `content` as the file `path`, whole or not at all."""
    with written_whole(path) as file:
        file.write(content)


def write_lines(path: epath.Path, lines: Sequence[str]) -> epath.Path:
    """Write a text file of `lines`, whole or not at all; return `path`."""
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def read_json(path: epath.Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises `UserError`, naming the file, if it cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    # A file that nests thousands of lists exhausts the parser's recursion.
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise UserError(
            f"{path}: cannot be read as JSON ({type(error).__name__}: {reason})"
        ) from error
    check(
        isinstance(values, dict),
        where=str(path),
        found=f"a {type(values).__name__}",
        expected="a JSON object",
    )
    return values


def is_compressed(name: str) -> bool:
    """Return true if `opened` decompresses the file, by its ending.

    Such a file can be read only from its beginning.
    """
    return epath.Path(name).suffix in OPENERS


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes, decompressed if its ending is one of `OPENERS`.

    Raises `UserError`, naming the file, if it cannot be read or is damaged.
    """
    path = epath.Path(name)
    try:
        with path.open("rb") as raw:
            wrap = OPENERS.get(path.suffix)
            yield wrap(raw) if wrap else raw
    # gzip raises EOFError where a file is cut off; LZMAError and zlib.error are no OSErrors.
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # Errors of a decompressor are OSErrors without a number; those of the system have one.
        if path.suffix in OPENERS and getattr(error, "errno", None) is None:
            raise UserError(
                f"{name}: is truncated or no whole {path.suffix} file ({error})"
            ) from error
        raise UserError(
            f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error


def is_plain_name(name: object) -> bool:
    """Return true if `name`, joined to a folder, can only be a file in that folder.

    This checks names from untrusted files: `name` must have no path separator and no drive, and it
    must not be the folder itself or its parent.
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def is_local(path: epath.Path) -> bool:
    """Return true if `path` is on a disk of this machine, and not in a store."""
    return "://" not in os.fspath(path)


def read_span(path: epath.Path, begin: int, end: int) -> bytes:
    """Return the bytes from `begin` to before `end` of a file, reading no others from a store."""
    if not is_local(path):
        if begin >= end:
            # HTTP has no empty range, so a store would answer with the whole file.
            return b""
        import fsspec

        system, name = fsspec.core.url_to_fs(os.fspath(path))
        return system.cat_file(name, start=begin, end=end)
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def version_of(path: epath.Path) -> str:
    """Return a string that changes when the file does.

    On a disk it consists of the size and the time of the last change; in a store it is the store's
    own fingerprint of the file.
    """
    if not is_local(path):
        import fsspec

        system, name = fsspec.core.url_to_fs(os.fspath(path))
        return system.ukey(name)
    # Not a digest of the content, for which the whole file would have to be read.
    stat = path.stat()
    return f"{stat.length} {stat.mtime}"


def local_copy(path: epath.Path, digest: str) -> epath.Path:
    """Return `path` itself if it is on a local disk, otherwise the path of a copy on one.

    Copies are kept in `~/.cache/bertjax` (or the folder that the environment variable
    `BERTJAX_CACHE` names) under `digest`, the digest of the content.
    """
    # Records are mapped into memory, which only a file on a local disk can be.
    if is_local(path):
        return path
    folder = epath.Path(os.environ.get("BERTJAX_CACHE") or "~/.cache/bertjax").expanduser()
    copy = folder / digest
    # A copy is never out of date: its name is the digest of its content.
    if not copy.exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, written_whole(copy) as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
    return copy
