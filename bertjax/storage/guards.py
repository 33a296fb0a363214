"""Checks before a file gets its name: of the locks of the folders that it is in."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from etils import epath

from bertjax.storage.paths import is_local

# Of the whole process, since threads write for the one that holds the lock.
_guards: list[tuple[str, Callable[[], object]]] = []
_changing = threading.Lock()


@contextmanager
def guarded(place: epath.Path, check: Callable[[], object]) -> Iterator[None]:
    """Let `check_guards` call `check` for each file at `place` or below it, within the block."""
    guard = (_absolute(place), check)
    with _changing:
        _guards.append(guard)
    try:
        yield
    finally:
        with _changing:
            _guards.remove(guard)


def check_guards(path: epath.Path) -> None:
    """Raise the error of a guard that refuses `path`."""
    # Most programs have none, and `_absolute` asks the disk.
    if not _guards:
        return
    name = _absolute(path)
    for place, check in list(_guards):
        if name == place or name.startswith(f"{place.rstrip('/')}/"):
            check()


def _absolute(path: epath.Path) -> str:
    name = os.fspath(path)
    return os.path.realpath(name) if is_local(path) else name
