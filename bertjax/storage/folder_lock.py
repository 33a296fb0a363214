"""Locks of folders that are written: one process at a time writes a run or a preparation.

A lock is a file in the folder, `.bertjax-lock`, that names its holder. Its creation fails where it
exists. The holder renews it while it lives. A lock is taken over from a holder that is dead: one on
this host as soon as its process is gone, one on another host when it was not renewed for
`EXPIRES_SECONDS`. Nothing here waits for a lock; `bertjax.parallel.job_lock` may.

A process may lose its lock, if it was stopped for longer than that, for example because the machine
slept. So before each commit it checks that the lock is still its own.
"""

import errno
import glob
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from etils import epath

from bertjax.errors import UserError, disk_errors, one_line
from bertjax.storage.guards import guarded
from bertjax.storage.holder import Holder, Host, has_ended, parsed, this_host, this_process
from bertjax.storage.lock_files import LEFT_SECONDS, Found, LockFile, lock_file
from bertjax.storage.paths import is_local

log = logging.getLogger("bertjax")

NAME = ".bertjax-lock"
EXPIRES_SECONDS = 60.0
"""A lock that was not renewed for this long is dead, where its holder is on another host."""
RENEWALS = 4
"""Renewals in `EXPIRES_SECONDS`: three may fail."""
JOIN_SECONDS = 5.0
ATTEMPTS = 5  # others may take and release the lock meanwhile
# By token. Other locks of this process are left from a release that failed.
_held: "dict[str, FolderLock]" = {}


class LockError(UserError):
    """A folder that another process writes, or whose lock this process has lost."""


class FolderLock:
    """A lock that this process holds; `folder_lock` makes it."""

    def __init__(self, place: epath.Path, file: LockFile, holder: Holder, expires: float):
        self._place, self._file, self._holder, self._expires = place, file, holder, expires
        self._content = holder.to_bytes()
        self._renewed = _now()
        self.lost = False
        """True once it was seen that the lock is not this process's own any more."""

    @property
    def token(self) -> str:
        """The name of this lock, which no other ever has."""
        return self._holder.token

    def check(self) -> None:
        """Raise `LockError` unless the lock is still this process's own.

        It is made new where that is overdue, so that it stays for a while.
        """
        try:
            if _now() - self._renewed > 2 * self._expires / RENEWALS:
                self.renew()
            content = self._file.content()
        except OSError as error:
            # Nobody takes over a lock that is new.
            if _now() - self._renewed < self._expires / 2:
                return
            raise LockError(
                f"{self._place}: its lock cannot be read ({error.strerror or one_line(error)}),"
                " so nothing more is written"
            ) from error
        if content != self._content:
            self.lost = True
            raise LockError(
                f"{self._place}: found {now_held_by(content)}, expected the lock of this process,"
                f" which was not renewed for {self._expires:.0f} s or was deleted; nothing more is"
                " written by it"
            )

    def renew(self) -> None:
        """Make the lock new, if it is still this process's own."""
        begin = _now()
        if self._file.renew(self._content):
            self._renewed = begin
        else:
            self.lost = True

    def release(self) -> None:
        """Remove the lock, if it is still this process's own."""
        _held.pop(self.token, None)
        try:
            self.check()
            self._file.remove()
        except LockError:
            return  # another's lock, or none
        except OSError as error:
            log.warning("%s: its lock cannot be removed (%s)", self._place, one_line(error))

    def renew_until(self, done: threading.Event) -> None:
        """Renew the lock again and again until `done`; in a thread."""
        while not done.wait(self._expires / RENEWALS):
            # `check` tells of it, at the next commit.
            with suppress(Exception):
                self.renew()


@contextmanager
def folder_lock(
    place: epath.Path,
    verb: str,
    *,
    beside: bool = False,
    host: Host | None = None,
    expires: float = EXPIRES_SECONDS,
) -> Iterator[FolderLock]:
    """Hold the lock of a folder within the block; it is made, and removed if it stays empty.

    `verb` is what the holder does, for messages. With `beside` the lock's file is beside `place`,
    which is a file, or a folder that is renamed when it is whole. Files that are written by
    `written_whole` in the folder get their names only if the lock is still held. Other commits call
    `FolderLock.check`.

    Raises `LockError` where another process holds the lock.
    """
    path = lock_path(place, beside)
    made: list[Path] = []
    try:
        with disk_errors(place):
            lock = _acquire(place, path, this_process(verb, host or this_host()), expires, made)
        try:
            with disk_errors(place):
                _remove_leftovers(path)
            with _renewed(lock), guarded(place, lock):
                yield lock
        finally:
            lock.release()
    finally:
        for folder in reversed(made):
            # One with files stays.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _renewed(lock: FolderLock) -> Iterator[None]:
    """Renew a lock within the block."""
    done = threading.Event()
    # A daemon, so that it does not keep a process alive that is done.
    thread = threading.Thread(target=lock.renew_until, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # A renewal on its way could come after the release. A disk that hangs is not waited for.
        thread.join(JOIN_SECONDS)


def is_lock(path: epath.Path) -> bool:
    """Return True for the file of a lock, and for what is left of one."""
    return NAME in path.name


def release_held() -> None:
    """Release all locks of this process, which ends in the next moment without exit handlers."""
    for lock in list(_held.values()):
        lock.release()


def _acquire(
    place: epath.Path, path: epath.Path, own: Holder, expires: float, made: list[Path]
) -> FolderLock:
    """Return the lock of `path`, taken; raise `LockError` where another process holds it.

    Folders that are made go to `made`.
    """
    try:
        for number in range(ATTEMPTS):
            made += _make_folder(path.parent)
            try:
                own = replace(own, folder=_identity(path.parent))
                lock = FolderLock(place, lock_file(path), own, expires)
                _held[own.token] = lock
                if _taken(place, lock_file(path), own, expires):
                    return lock
            except FileNotFoundError:
                # A process that ends has removed the empty folder.
                if number + 1 == ATTEMPTS:
                    raise
        raise LockError(f"{place}: found several processes that take its lock, expected one")
    except BaseException:
        _held.pop(own.token, None)
        raise


def _taken(place: epath.Path, file: LockFile, own: Holder, expires: float) -> bool:
    """Return True if the lock was free or dead and is taken now, False if it has just changed."""
    content = own.to_bytes()
    if file.create(content):
        return True
    found = file.read()
    if found is None:
        return False
    # A store may create it, and lose the answer.
    if found.content == content:
        return True
    reason = _reason_to_take_over(place, file, found, own, expires)
    if not file.take_over(found, content):
        return False
    log.warning("%s: taken over from %s, %s", place, _described(found.content), reason)
    return True


def _reason_to_take_over(
    place: epath.Path, file: LockFile, found: Found, own: Holder, expires: float
) -> str:
    """Return why the holder of a lock counts as dead; raise `LockError` where it does not."""
    refusal = f"{place}: found {_described(found.content)} at work on it, expected no other process"
    advice = "wait until it ends, or end it"
    holder = parsed(found.content)
    if holder is not None and holder.is_near(own):
        if holder.folder != own.folder:
            return "whose lock came here in a copy of its folder"
        if has_ended(holder):
            return "which has ended"
        if holder.pid == own.pid and holder.token not in _held:
            return "which did not release it"
        raise LockError(f"{refusal}; {advice}")
    age = file.clock() - found.changed
    if age > expires:
        return f"which did not renew its lock for {age:.0f} s"
    # A clock that was set back makes the age negative: then it takes so much longer.
    raise LockError(
        f"{refusal}; {advice}; it renewed its lock {max(age, 0.0):.0f} s ago, and counts as dead in"
        f" {expires - age:.0f} s unless it renews it again"
    )


def _described(content: bytes) -> str:
    holder = parsed(content)
    return holder.describe() if holder else "a process that is not known"


def now_held_by(content: bytes | None) -> str:
    """Return what an error names as found in the place of a lock that was lost."""
    return "no lock" if content is None else f"{_described(content)} at work on it"


def lock_path(place: epath.Path, beside: bool) -> epath.Path:
    """Return the path of the lock's file of a place, as `folder_lock` has it."""
    return place.parent / f".{place.name}{NAME}" if beside else place / NAME


def _make_folder(folder: epath.Path) -> list[Path]:
    """Make a folder; return the folders that were made, the outermost first: none in a store."""
    if not is_local(folder):
        return []
    path = Path(folder)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    return missing[::-1]


def _identity(folder: epath.Path) -> str:
    """Return what tells a folder from a copy of it; nothing in a store."""
    if not is_local(folder):
        return ""
    facts = Path(folder).stat()
    return f"{facts.st_dev} {facts.st_ino}"


def _remove_leftovers(path: epath.Path) -> None:
    """Remove what kills have left of attempts to take a lock."""
    if not is_local(path):
        return
    # Without a shared clock: what is removed too early makes an attempt fail, which is made again.
    for left in Path(path).parent.glob(f"{glob.escape(path.name)}.*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()


def _now() -> float:
    """Return the seconds since a moment; those in which the machine slept count."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
