"""Runners for the work of preparation: in several processes, or in this one.

The work writes its results to the disk and returns nothing.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from etils import epath

from bertjax.errors import UserError
from bertjax.progress import Progress
from bertjax.storage import working_under


class WorkItem(NamedTuple):
    """A call that any worker can make: the function and its arguments are picklable."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    folder: str = ""
    token: str = ""
    """The folder that is written, and the token of its lock, or both empty.

    The process that asks for the work holds the lock.
    """

    def run(self) -> None:
        """Call the function; its result is dropped.

        A worker may outlive the process that started it, and be there twice: runners repeat work.
        So every function writes files that have the same bytes each time, each by `written_whole`,
        removes none that another may have written, and gives them names only under the lock.
        """
        if not self.token:
            self.function(*self.arguments)
            return
        with working_under(epath.Path(self.folder), self.token):
            self.function(*self.arguments)


RunStage = Callable[[str, Sequence[WorkItem], Progress], None]
"""`run(stage, items, progress)` runs the items, in any order, and returns when all are done."""
Runner = AbstractContextManager[RunStage]


@contextlib.contextmanager
def local_runner(workers: int) -> Iterator[RunStage]:
    """Yield a function that runs stages in `workers` processes; if 1, in this process."""
    if workers == 1:
        yield _run_here
        return
    # Spawn, not fork: the tokenizers' threads and TensorFlow's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:

        def run(stage: str, items: Sequence[WorkItem], progress: Progress) -> None:
            _run_in_pool(pool, stage, items, progress)

        yield run


def _run_in_pool(
    pool: ProcessPoolExecutor, stage: str, items: Sequence[WorkItem], progress: Progress
) -> None:
    futures: list[Future[Any]] = [pool.submit(item.run) for item in items]
    progress(stage, 0, len(items))
    try:
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(stage, done, len(items))
    # The kernel kills processes when memory is short; the pool can tell only that one is gone.
    except BrokenProcessPool as error:
        raise UserError(
            f"prepare: a worker was killed while it had to {stage}, memory may be short"
        ) from error
    except BaseException:
        # Items that have started run to the end: no worker may write after the error is reported.
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _run_here(stage: str, items: Sequence[WorkItem], progress: Progress) -> None:
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        item.run()
    progress(stage, len(items), len(items))


def _start_worker() -> None:
    """Prepare a worker process: it uses one tokenizer thread and ends when its parent ends.

    The worker watches its parent, because a parent killed by SIGKILL cannot end its workers.
    """
    # One thread is enough, because each core has a process already.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        # Not `sys.exit`, which in a thread ends that thread only.
        os._exit(1)

    # A daemon, so that a worker whose work is done does not wait for it.
    threading.Thread(target=watch, daemon=True).start()
