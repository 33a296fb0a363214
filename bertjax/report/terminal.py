"""Progress bars and log lines on a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from bertjax.progress import Progress, silent
from bertjax.training.logs.log_file import FORMAT


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """A bar a stage, with rate and time left, on a terminal; nothing where stderr is none."""
    if not sys.stderr.isatty():
        yield silent
        return
    bar, now = None, ""

    def show(stage: str, done: int, total: int) -> None:
        nonlocal bar, now
        if bar is None or stage != now:
            if bar is not None:
                bar.close()
            # A run that resumes starts its bar where it resumes, so that the rate is this start's.
            bar, now = (
                tqdm(desc=stage, total=total or None, initial=max(done - 1, 0), dynamic_ncols=True),
                stage,
            )
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def log_to_terminal(process_name: str = "") -> Iterator[None]:
    """Write what bertjax logs meanwhile to stderr, and hand it to no other logger.

    All lines, or warnings alone where stderr is a terminal, which has the progress bar. Of a
    process with a `process_name` (such as `process 1 of 4`) warnings alone, with its name before
    them.
    """
    logger = logging.getLogger("bertjax")
    before = logger.level, logger.propagate
    quiet = bool(process_name) or sys.stderr.isatty()
    handler = _Screen(logging.WARNING if quiet else logging.INFO)
    prefix = f"{process_name}: " if process_name else ""
    handler.setFormatter(logging.Formatter(prefix + FORMAT))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        logger.removeHandler(handler)


class _Screen(logging.StreamHandler):
    """Writes above the progress bar, not through it."""

    def __init__(self, level: int):
        super().__init__()
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
