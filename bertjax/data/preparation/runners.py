"""Running preparation's tasks in several processes, or in this one. Results are left on the disk,
not returned.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Any

from bertjax.errors import UserError
from bertjax.progress import Progress

Task = tuple[Any, ...]  # a function and its arguments
Run = Callable[[str, list[Task], Progress], None]
"""`run(stage, tasks, progress)` runs the tasks, in any order, and returns when all are done."""
Runner = AbstractContextManager[Run]


@contextlib.contextmanager
def local_runner(workers: int) -> Iterator[Run]:
    """Runs tasks in `workers` processes, in this one if that is 1."""
    if workers == 1:
        yield _here
        return
    # Spawn, not fork: the tokenizers' threads and TensorFlow's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:

        def spread(stage: str, tasks: list[Task], progress: Progress) -> None:
            futures: list[Future[Any]] = [
                pool.submit(task, *arguments) for task, *arguments in tasks
            ]
            progress(stage, 0, len(tasks))
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    future.result()
                    progress(stage, done, len(tasks))
            except BrokenProcessPool as error:
                raise UserError(
                    f"prepare: a worker was killed while it had to {stage}, memory may be short"
                ) from error
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

        yield spread


def _here(stage: str, tasks: list[Task], progress: Progress) -> None:
    for done, (task, *arguments) in enumerate(tasks):
        progress(stage, done, len(tasks))
        task(*arguments)
    progress(stage, len(tasks), len(tasks))


def _end_with_parent() -> None:
    """Let no worker outlive a parent that was killed; and one tokenizer thread each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
