"""Running preparation's tasks in several processes, or in this one."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from bertjax.errors import UserError
from bertjax.progress import Progress

Task = tuple[Any, ...]  # a function and its arguments
Runner = Callable[[str, list[Task], Progress], list[Any]]


@contextlib.contextmanager
def runner(workers: int) -> Iterator[Runner]:
    """A function that runs tasks in `workers` processes, in this one if that is 1; results in the tasks' order."""

    def here(stage: str, tasks: list[Task], progress: Progress) -> list[Any]:
        results = []
        for done, (task, *arguments) in enumerate(tasks):
            progress(stage, done, len(tasks))
            results.append(task(*arguments))
        progress(stage, len(tasks), len(tasks))
        return results

    if workers == 1:
        yield here
        return
    # Spawn, not fork: the tokenizers' threads and TensorFlow's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:

        def spread(stage: str, tasks: list[Task], progress: Progress) -> list[Any]:
            futures: list[Future[Any]] = [pool.submit(task, *arguments) for task, *arguments in tasks]
            progress(stage, 0, len(tasks))
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    future.result()
                    progress(stage, done, len(tasks))
            except BrokenProcessPool as error:
                raise UserError(f"prepare: a worker was killed while it had to {stage}, memory may be short") from error
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            return [future.result() for future in futures]

        yield spread


def _end_with_parent() -> None:
    """Let no worker outlive a parent that was killed; and one tokenizer thread each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
