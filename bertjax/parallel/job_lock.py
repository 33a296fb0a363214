"""The lock of a folder that all processes of a job write together."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from etils import epath

from bertjax.parallel import hosts
from bertjax.storage import FolderLock, LockError, folder_lock

RETRY_SECONDS = 1.0


@contextmanager
def job_lock(folder: epath.Path, verb: str) -> Iterator[None]:
    """Hold the lock of a folder (`bertjax.storage.folder_lock`) for all processes of a job.

    The first process takes it, and the others wait here until it has. It also checks it before each
    commit, because commits wait for the first process. Where it is refused, or finds its lock lost,
    `failures.end_together` ends all.
    """
    if not hosts.is_first():
        hosts.from_first("")
        yield
        return
    with ExitStack() as stack:
        lock = _taken(stack, folder, verb)
        hosts.from_first(lock.token)
        yield


def _taken(stack: ExitStack, folder: epath.Path, verb: str) -> FolderLock:
    """Return the lock, held until the stack is closed; wait for it up to `hosts.lock_seconds`."""
    deadline = time.monotonic() + hosts.lock_seconds()
    while True:
        try:
            return stack.enter_context(folder_lock(folder, verb))
        except LockError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)
