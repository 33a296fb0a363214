"""Progress bars and log lines on a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from bertjax.progress import Progress, silent
from bertjax.training.logs.log_file import FORMAT


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Yield a progress callback that draws a bar for each stage, with its rate and the time left.

    It draws nothing if stderr is not a terminal. If stderr cannot be written any more, its terminal
    closed, the disk of its file full, then the work goes on without it.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    bar: tqdm | None = None
    bar_stage = ""

    def show(stage: str, done: int, total: int) -> None:
        nonlocal bar, bar_stage
        if bar is None or stage != bar_stage:
            if bar is not None:
                bar.close()
            # A resumed run's bar starts at its first step, so that the rate counts new steps only.
            begin = max(done - 1, 0)
            bar = tqdm(desc=stage, total=total or None, initial=begin, dynamic_ncols=True)
            bar_stage = stage
        # tqdm's `update` takes the increase, and `done` is the total so far.
        bar.update(done - bar.n)

    def show_if_possible(stage: str, done: int, total: int) -> None:
        with suppress(OSError):
            show(stage, done, total)

    try:
        yield show_if_possible
    finally:
        if bar is not None:
            with suppress(OSError):
                bar.close()


@contextmanager
def log_to_terminal(process_name: str = "", *, always: bool = False) -> Iterator[None]:
    """Write the log of bertjax to stderr, not to the root logger, while the context is open.

    If stderr is a terminal, only warnings are written, because it shows the progress bar; `always`
    is for work without one. If there is a `process_name` (such as `process 1 of 4`), only warnings
    are written too, and each begins with this name.
    """
    logger = logging.getLogger("bertjax")
    before = logger.level, logger.propagate
    quiet = bool(process_name) or (sys.stderr.isatty() and not always)
    handler = _AboveBar(logging.WARNING if quiet else logging.INFO)
    prefix = f"{process_name}: " if process_name else ""
    handler.setFormatter(logging.Formatter(prefix + FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the root's handlers, absl's among them, would write it again
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        logger.removeHandler(handler)


class _AboveBar(logging.StreamHandler):
    """Handler that writes to stderr above the progress bar, not into its line.

    Lines that stderr does not take are lost; a run has them in its `log.txt` too.
    """

    def __init__(self, level: int):
        super().__init__()
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            tqdm.write(self.format(record), file=sys.stderr)
