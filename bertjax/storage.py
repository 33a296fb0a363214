"""Files that appear whole or not at all, here or in a store such as gs:// or s3://."""

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

from bertjax.errors import UserError, check, disk_errors

# Before the first path is used. TensorFlow, which epath would take for gs:// and s3://, costs
# seconds to import and knows no s3://; fsspec keeps listings, which other processes make untrue.
os.environ.setdefault("EPATH_USE_TF", "false")
for _store in ("S3", "GS"):
    os.environ.setdefault(f"FSSPEC_{_store}_USE_LISTINGS_CACHE", "false")

OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),  # type: ignore[dict-item,return-value]
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@contextmanager
def written_whole(path: epath.Path) -> Iterator[IO[bytes]]:
    """A file to write, which has the name `path` only when the block is through and it is on the
    disk.

    Nothing is left of it when the block fails; `UserError` naming `path` when the disk refuses.
    """
    unfinished = path.parent / f"{path.name}.unfinished"
    with disk_errors(path):
        try:
            with unfinished.open("wb") as file:
                yield file
                if is_local(path):
                    file.flush()
                    os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def write_whole(path: epath.Path, content: bytes) -> None:
    """`content` as the file `path`, by `written_whole`."""
    with written_whole(path) as file:
        file.write(content)


def write_lines(path: epath.Path, lines: Sequence[str]) -> epath.Path:
    """Write a text file of `lines`, whole or not at all; return `path`."""
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def read_json(path: epath.Path) -> dict[str, Any]:
    """The object in a JSON file; `UserError` naming it where it cannot be read or holds something
    else.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
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
    """Whether the file is decompressed by its ending; such a file is read from its beginning only."""
    return epath.Path(name).suffix in OPENERS


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its ending; a damaged file is a `UserError`."""
    path = epath.Path(name)
    try:
        with path.open("rb") as raw:
            wrap = OPENERS.get(path.suffix)
            yield wrap(raw) if wrap else raw
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # The decompressors' own OSErrors carry no number; the system's do.
        if path.suffix in OPENERS and getattr(error, "errno", None) is None:
            raise UserError(
                f"{name}: is truncated or no whole {path.suffix} file ({error})"
            ) from error
        raise UserError(
            f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error


def is_plain_name(name: object) -> bool:
    """Whether `name`, from a file of a stranger, can only be a file of the folder that it is looked
    for in.
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def is_local(path: epath.Path) -> bool:
    """Whether `path` is on a disk of this machine."""
    return "://" not in os.fspath(path)


def read_span(path: epath.Path, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of a file, and from a store no more than those."""
    if not is_local(path):
        if begin >= end:
            return b""  # HTTP has no empty range, and a store gives the whole file for it
        import fsspec

        system, name = fsspec.core.url_to_fs(os.fspath(path))
        return system.cat_file(name, start=begin, end=end)
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def version_of(path: epath.Path) -> str:
    """What changes when the file does: its size and time of change, or the store's own mark."""
    if not is_local(path):
        import fsspec

        system, name = fsspec.core.url_to_fs(os.fspath(path))
        return system.ukey(name)
    stat = path.stat()
    return f"{stat.length} {stat.mtime}"


def local_copy(path: epath.Path, digest: str) -> epath.Path:
    """`path` itself if it is on a disk here; else a copy, kept by its content's digest in
    `~/.cache/bertjax`.
    """
    if is_local(path):
        return path
    folder = epath.Path(os.environ.get("BERTJAX_CACHE") or "~/.cache/bertjax").expanduser()
    copy = folder / digest
    if not copy.exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, written_whole(copy) as target:
            shutil.copyfileobj(source, target, 1 << 24)
    return copy
