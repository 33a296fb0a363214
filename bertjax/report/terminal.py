"""Progress bars on a terminal, and the lines of bertjax's log."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from etils import epath
from tqdm import tqdm

from bertjax.progress import Progress, silent

FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Yield a progress callback that draws a bar for each stage, with its rate and the time left.

    It draws nothing where stderr is no terminal.
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
            # A resumed run starts its bar where it resumes, so that the rate is of this start.
            begin = max(done - 1, 0)
            bar = tqdm(desc=stage, total=total or None, initial=begin, dynamic_ncols=True)
            bar_stage = stage
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def log_to(run_dir: epath.Path) -> Iterator[None]:
    """Append bertjax's own log lines to `run_dir/log.txt`, and write them to stderr.

    On a terminal, which shows a progress bar, only warnings are written to stderr.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "log.txt").open("a") as file:
        level = logging.WARNING if sys.stderr.isatty() else logging.INFO
        handlers = [logging.StreamHandler(file), _AboveBar(level)]
        with _log_through(handlers, FORMAT):
            yield


@contextmanager
def warnings_of(process: str) -> Iterator[None]:
    """Write only warnings of bertjax's own log to stderr, headed by the name of the process."""
    with _log_through([_AboveBar(logging.WARNING)], f"{process}: {FORMAT}"):
        yield


@contextmanager
def _log_through(handlers: Sequence[logging.Handler], line_format: str) -> Iterator[None]:
    logger = logging.getLogger("bertjax")
    before = logger.level, logger.propagate
    for handler in handlers:
        handler.setFormatter(logging.Formatter(line_format))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the root's handlers, absl's among them, would write it again
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        for handler in handlers:
            logger.removeHandler(handler)


class _AboveBar(logging.StreamHandler):
    """Handler that writes to stderr above the progress bar, not into its line."""

    def __init__(self, level: int):
        super().__init__()
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
