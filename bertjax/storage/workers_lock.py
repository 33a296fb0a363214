"""The lock of a folder in a process that works for its holder, such as a worker of a pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from etils import epath

from bertjax.errors import disk_errors
from bertjax.storage.folder_lock import LockError, lock_path, now_held_by
from bertjax.storage.guards import guarded
from bertjax.storage.holder import parsed
from bertjax.storage.lock_files import lock_file


@dataclass
class _LockOfAnother:
    """The lock of the process for which this one works."""

    place: epath.Path
    token: str
    lost: bool = False

    def check(self) -> None:
        with disk_errors(self.place):
            content = lock_file(lock_path(self.place, beside=False)).content()
        holder = None if content is None else parsed(content)
        self.lost = holder is None or holder.token != self.token
        if self.lost:
            raise LockError(
                f"{self.place}: found {now_held_by(content)}, expected the lock of the process for"
                " which this one works; nothing more is written by it"
            )


@contextmanager
def working_under(place: epath.Path, token: str) -> Iterator[None]:
    """Let files in a folder get their names only while another process has the lock `token`.

    That is the process for which this one works: work that outlives it writes nothing. Raises
    `LockError` where it has none at the beginning.
    """
    lock = _LockOfAnother(place, token)
    lock.check()
    with guarded(place, lock):
        yield
