"""Files that appear whole or not at all, on a local disk or in a store (gs://, s3://)."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from etils import epath

from bertjax.errors import check, disk_errors
from bertjax.given_files import read_json_value
from bertjax.storage.guards import check_locks
from bertjax.storage.paths import is_local

Json = Mapping[str, Any]
"""An object from a JSON file; its values may be of any type."""
UNFINISHED = ".unfinished"
"""End of the names of files that are being written; a kill leaves them."""
CHUNK_BYTES = 1 << 24
"""Size of the parts in which a file is copied, 16 MiB; a copy needs this much memory."""


@contextmanager
def written_whole(path: epath.Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it gets the name `path` after the block, when it is on the disk.

    If the block fails, nothing is left of the file. Until then it has a name of its own, so that
    several processes may write the same file at once. Raises `UserError`, naming `path`, if it
    cannot be written, or is in a folder whose lock this process has lost (`folder_lock`).
    """
    unfinished = unfinished_path(path)
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
            check_locks(path)
            unfinished.replace(path)
        # Ctrl-C must leave nothing either, and KeyboardInterrupt is no Exception.
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def unfinished_path(path: epath.Path) -> epath.Path:
    """Return a path for what is to become `path`, which no other process uses."""
    # In the same folder, since a rename is atomic only within one file system.
    return path.parent / f"{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}"


def remove_unfinished(folder: epath.Path) -> None:
    """Remove what kills have left of files in a folder, and below: those without a whole name.

    Only the process that has the folder's lock may call this.
    """
    if is_local(folder):
        for left in Path(folder).rglob(f"*{UNFINISHED}"):
            left.unlink(missing_ok=True)
        return
    import fsspec

    system, name = fsspec.core.url_to_fs(os.fspath(folder))
    for key in system.find(name):
        if key.endswith(UNFINISHED):
            system.rm_file(key)


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
    values = read_json_value(path)
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


def exact_version_of(path: epath.Path) -> str:
    """Return a string that changes with each change of a file, also within a second.

    On a disk it changes with the file's place and rights, too. In a store it is `version_of`.
    """
    if not is_local(path):
        return version_of(path)
    facts = os.stat(path)
    # No program can set the ctime: a file with the time and size of another has its own.
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


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
