"""Files that appear whole or not at all, on a local disk or in a store (gs://, s3://)."""

import bz2
import gzip
import io
import json
import lzma
import os
import posixpath
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from etils import epath

from bertjax.errors import UserError, check, disk_errors, mismatch, one_line
from bertjax.file_kinds import HEAD_BYTES, kind_of

# Set before epath opens its first path. By default epath uses TensorFlow for gs:// and s3://, which
# takes seconds to import and cannot read s3://. Without TensorFlow it uses fsspec, whose cache of
# folder listings would hide files that other processes write, so that cache is off.
os.environ.setdefault("EPATH_USE_TF", "false")
for _store in ("S3", "GS"):
    os.environ.setdefault(f"FSSPEC_{_store}_USE_LISTINGS_CACHE", "false")

Json = Mapping[str, Any]
"""An object from a JSON file; its values may be of any type."""
CHUNK_BYTES = 1 << 24
"""Size of the parts in which a file is copied, 16 MiB; a copy needs this much memory."""


def _open_gzip(file: IO[bytes]) -> IO[bytes]:
    # By name: the first parameter of `GzipFile` is a path, unlike those of the other two.
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]


def _open_zstd(file: IO[bytes]) -> IO[bytes]:
    # Imported late: few corpora are in this form.
    import pyarrow as pa

    # Buffered, because pyarrow's stream has no lines.
    return io.BufferedReader(pa.CompressedInputStream(file, "zstd"))


OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
}
"""Decompressors by the ending of a file; what they return can be read only from the beginning."""
TAR_ENDINGS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""Endings of compressed tar archives, each with the key of `OPENERS` for it."""


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


def read_json_if_there(path: epath.Path) -> dict[str, Any]:
    """Return the object in a JSON file as `read_json`; an empty one if there is no file."""
    return read_json(path) if path.exists() else {}


def compression_of(name: str) -> str:
    """Return the key of `OPENERS` that a file's ending names, in small letters; "" if none."""
    ending = posixpath.splitext(name)[1].lower()
    ending = TAR_ENDINGS.get(ending, ending)
    return ending if ending in OPENERS else ""


def is_compressed(name: str) -> bool:
    """Return true if `opened` decompresses the file, by its ending.

    Such a file can be read only from its beginning.
    """
    return compression_of(name) != ""


@contextmanager
def read_errors(name: str, compression: str, head: Callable[[], bytes]) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a `UserError` naming it.

    `compression` is a key of `OPENERS`, or empty; `head` returns the file's first bytes.
    """
    try:
        yield
    # gzip raises EOFError where a file is cut off; LZMAError and zlib.error are no OSErrors.
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # Errors of a decompressor are OSErrors without a number; those of the system have one.
        if not compression or getattr(error, "errno", None) is not None:
            raise UserError(
                f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
            ) from error
        kind = kind_of(head())
        if kind and kind.ending != compression:
            raise mismatch(
                where=name, found=kind.name, expected=f"what its ending says, {compression}"
            ) from error
        raise UserError(f"{name}: is truncated or no whole {compression} file ({error})") from error


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes, decompressed if its ending is one of `OPENERS`.

    Raises `UserError`, naming the file, if it cannot be read or is damaged.
    """
    path = epath.Path(name)
    compression = compression_of(name)

    def head() -> bytes:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)

    with read_errors(name, compression, head), path.open("rb") as raw:
        yield OPENERS[compression](raw) if compression else raw


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

    Copies are kept as `cached` keeps its files, under `digest`, the digest of the content.
    """
    # Records are mapped into memory, which only a file on a local disk can be.
    if is_local(path):
        return path

    def blocks() -> Iterator[bytes]:
        with path.open("rb") as source:
            yield from blocks_of(source)

    return cached(digest, blocks())


def cache_folder() -> epath.Path:
    """Return the folder of this user's copies of files: `$BERTJAX_CACHE` or `~/.cache/bertjax`."""
    return epath.Path(os.environ.get("BERTJAX_CACHE") or "~/.cache/bertjax").expanduser()


def blocks_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an open file, `CHUNK_BYTES` at a time."""
    while block := file.read(CHUNK_BYTES):
        yield block


def cached(digest: str, blocks: Iterator[bytes]) -> epath.Path:
    """Return the path of a file on a local disk; `blocks` are its bytes, unless it is there.

    It is in `cache_folder` under the name `digest`, which must tell what the file holds: a file is
    never out of date.
    """
    folder = cache_folder()
    path = folder / digest
    if not path.exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Read first: what cannot be opened is no fault of the disk.
        first = next(blocks, b"")
        # Under a name of its own, because the processes of a run may all come here at once.
        own = folder / f"{digest}.{uuid.uuid4().hex}"
        with written_whole(own) as target:
            target.write(first)
            for block in blocks:
                target.write(block)
        own.replace(path)
    return path
