"""The locks that a process relies on, by the folders that they are of."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from etils import epath

from bertjax.storage.paths import is_local


class Guard(Protocol):
    """A lock without which nothing may be written in a folder."""

    @property
    def lost(self) -> bool:
        """True where it is known that the lock is another process's now; this asks no disk."""

    def check(self) -> None:
        """Raise `UserError` unless the lock is held; this asks the disk."""


# Of the whole process, since threads write for the one that holds the lock.
_guards: list[tuple[str, Guard]] = []
_changing = threading.Lock()


@contextmanager
def guarded(place: epath.Path, guard: Guard) -> Iterator[None]:
    """Let `check_locks` ask the guard about each file at `place` or below it, within the block."""
    entry = (_absolute(place), guard)
    with _changing:
        _guards.append(entry)
    try:
        yield
    finally:
        with _changing:
            _guards.remove(entry)


def guards_of(path: epath.Path) -> list[Guard]:
    """Return the locks on which what is written at `path` depends: none where nobody took one."""
    # Most programs have none, and `_absolute` asks the disk.
    if not _guards:
        return []
    name = _absolute(path)
    return [
        guard
        for place, guard in list(_guards)
        if name == place or name.startswith(f"{place.rstrip('/')}/")
    ]


def check_locks(path: epath.Path) -> None:
    """Raise `UserError` where this process has lost a lock on which `path` depends.

    A commit asks this right before it. `written_whole` does so itself.
    """
    for guard in guards_of(path):
        guard.check()


def _absolute(path: epath.Path) -> str:
    name = os.fspath(path)
    return os.path.realpath(name) if is_local(path) else name
