"""Outputs of verbs: whole or not there, made by one process at a time, made again after a kill.

What is not finished lies in a part folder: `NAME.bertjax-part` beside a folder that is not there
yet, `.bertjax-part` in a folder that is. What a kill leaves is removed by the next command with
this output.
"""

import glob
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from etils import epath

from bertjax.errors import UserError, check, disk_errors
from bertjax.storage.files import CHUNK_BYTES, UNFINISHED, blocks_of, cache_folder, written_whole
from bertjax.storage.folder_lock import NAME as LOCK
from bertjax.storage.folder_lock import folder_lock, is_lock
from bertjax.storage.output_record import (
    RECORD,
    Record,
    read_record,
    request_digest,
    write_record,
)
from bertjax.storage.paths import is_local

log = logging.getLogger("bertjax")

PART = ".bertjax-part"
UNFINISHED_FILE = re.compile(rf"\.[0-9a-f]{{12}}{re.escape(UNFINISHED)}$")
"""End of a name that `written_whole` gives to a file until it is whole."""


def is_made(folder: epath.Path, request: str) -> bool:
    """Return whether `folder` is whole and was made by `request`.

    Raises `UserError` if it has other files than what a kill leaves, or cannot be read.
    """
    with disk_errors(folder):
        new, names = not folder.exists(), set()
        if folder.is_dir():
            new, names = True, set(_names(folder))
        if names:
            record = read_record(folder)
            asked = record.whole and record.request and record.request == request
            # A file may have been removed or changed since; others may have been added.
            if asked and record.files.items() <= _digests(folder).items():
                return True
            new = not record.whole and names <= record.names()
    check(new, where=str(folder), found="files there", expected="a folder that is new or empty")
    return False


@contextmanager
def folder_written_whole(
    folder: epath.Path, verb: str, request: str = "", *, last: str = ""
) -> Iterator[epath.Path | None]:
    """Yield an empty local folder; what the block writes there is in `folder` after the block.

    `folder` must be new or empty, or left by a command that was killed. If it is not there yet, it
    gets its name with all its files at once. In a folder that is there, and in a store, no folder
    can be renamed. There the file `RECORD` says that the output is not whole until all its files
    are in place, and `check_whole` refuses it. `last` names the file, put in place last, without
    which other programs take the folder for empty.

    Yields None if `folder` is whole and was made by the same `request` (`request_digest`): a
    command that was killed right at its end succeeds when it is repeated. If the block fails,
    nothing is left. Raises `UserError` if `folder` has other files, or if another process, which
    runs `verb`, writes it.
    """
    made = is_made(folder, request)
    remove_left(folder, verb)
    if made:
        log.info("%s: is there already, made by the same command", folder)
        yield None
        return
    inside = folder.exists() or not is_local(folder)
    with folder_lock(folder, verb, beside=not inside) as lock:
        # Another process may have made it since.
        if is_made(folder, request):
            yield None
            return
        with disk_errors(folder):
            _remove_unfinished(folder)
        with part_folder(_part_place(folder, inside)) as part, errors_that_name(folder, part):
            yield part
            write_record(part, Record(request, files=_digests(part)))
            lock.check()
            _put_in_place(part, folder, last)


def remove_left(folder: epath.Path, verb: str) -> None:
    """Remove the locks and parts that a kill left of a folder that is there by now."""
    if not folder.exists():
        return
    locks = {True: folder / LOCK}
    if is_local(folder):
        locks[False] = folder.parent / f".{folder.name}{LOCK}"
    for inside, lock in locks.items():
        place = _part_place(folder, inside)
        if place.exists() or lock.exists():
            with folder_lock(folder, verb, beside=not inside):
                _remove(place)


def discard(folder: epath.Path) -> None:
    """Remove an output that is to be made anew, if it is there.

    It loses its name first: what a kill leaves of it is not taken for whole.
    """
    with disk_errors(folder):
        if is_local(folder) and folder.exists():
            place = _part_place(folder, inside=False)
            _remove(place)
            folder.rename(place)
            folder = place
        _remove(folder)


@contextmanager
def files_held(verb: str, *paths: epath.Path, age: float = 0.0) -> Iterator[None]:
    """Hold the lock of files that the block writes by `written_whole`: that of the first one.

    What a kill left of them is removed first; only if it is more than `age` seconds old, where
    processes that do not hold this lock write such files too. Raises `UserError` if another process
    holds the lock.
    """
    with folder_lock(paths[0], verb, beside=True):
        for path in paths:
            for left in path.parent.glob(f"{glob.escape(path.name)}.*{UNFINISHED}"):
                with suppress(FileNotFoundError):
                    if not age or time.time() - left.stat().mtime > age:
                        left.unlink()
        yield


@contextmanager
def part_folder(place: epath.Path) -> Iterator[epath.Path]:
    """Yield a new folder in the part folder `place`, which is removed after the block.

    What a kill left in `place` is removed too: only who holds a lock may call this.
    """
    # A name of its own: a process that has lost the lock cannot write into it.
    part = place / uuid.uuid4().hex
    try:
        with disk_errors(place):
            _remove(place)
            part.mkdir(parents=True)
        yield part
    finally:
        _remove(place)


def _part_place(folder: epath.Path, inside: bool) -> epath.Path:
    """Return the part folder of `folder`, which is in `folder` or beside it."""
    if not is_local(folder):
        # Not in the system's folder for temporary files: the name is the same after a kill, and
        # there any user could take a name that can be foreseen.
        return cache_folder() / "unfinished" / request_digest("part", folder=str(folder))
    return folder / PART if inside else folder.parent / f"{folder.name}{PART}"


def _is_left(path: epath.Path) -> bool:
    """Return whether a kill, or another process, may leave this in any output folder."""
    return path.name == PART or is_lock(path) or UNFINISHED_FILE.search(path.name) is not None


def _names(folder: epath.Path) -> Iterator[str]:
    """Yield the names in an output folder that no kill leaves."""
    for path in folder.iterdir():
        if not _is_left(path):
            yield path.name


def _put_in_place(part: epath.Path, folder: epath.Path, last: str) -> None:
    """Give the files in `part` their names in `folder`: all at once if it is not there yet."""
    with disk_errors(folder):
        if is_local(folder) and not folder.exists():
            part.rename(folder)
            return
        entries = [path for path in part.iterdir() if path.name != RECORD]
        entries.sort(key=lambda path: (path.name == last, path.name))
        record = read_record(part)
        write_record(folder, record._replace(whole=False))
        try:
            for path in entries:
                _move(path, folder / path.name)
        except BaseException:
            with suppress(OSError):
                _remove_unfinished(folder)
            raise
        write_record(folder, record)


def _move(source: epath.Path, target: epath.Path) -> None:
    """Move a file or folder from a local disk; to a store its files are copied."""
    if is_local(target):
        source.rename(target)
    elif source.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
    else:
        with source.open("rb") as content, written_whole(target) as copy:
            shutil.copyfileobj(content, copy, CHUNK_BYTES)


def _remove_unfinished(folder: epath.Path) -> None:
    """Remove from `folder` what a kill has left of files, and of an output that is not whole."""
    for path in folder.iterdir() if folder.exists() else ():
        if UNFINISHED_FILE.search(path.name):
            path.unlink(missing_ok=True)
    record = read_record(folder)
    if record.whole:
        return
    for name in record.names() - {RECORD}:
        _remove(folder / name)
    # Last: after a kill in between, it still says what is to be removed.
    _remove(folder / RECORD)


def _remove(path: epath.Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    is_link = is_local(path) and os.path.islink(path)
    if path.is_dir() and not is_link:
        path.rmtree()
    else:
        path.unlink(missing_ok=True)


@contextmanager
def errors_that_name(folder: epath.Path, part: epath.Path) -> Iterator[None]:
    """Turn the name of a part in a `UserError` into that of the output."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if str(part) not in text:
            raise
        raise type(error)(text.replace(str(part), str(folder))) from error


def _digests(folder: epath.Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an output, by its path in the folder."""
    digests: dict[str, str] = {}
    for name in set(_names(folder)) - {RECORD}:
        path = folder / name
        if path.is_dir():
            digests |= {f"{name}/{inner}": each for inner, each in _digests(path).items()}
        else:
            digests[name] = _digest(path)
    return dict(sorted(digests.items()))


def _digest(path: epath.Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in blocks_of(file):
            digest.update(block)
    return digest.hexdigest()
