"""The lock of a folder that all processes of a job write together."""

from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from bertjax.parallel import hosts
from bertjax.storage import folder_lock


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
    with folder_lock(folder, verb) as lock:
        hosts.from_first(lock.token)
        yield
