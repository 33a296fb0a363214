"""Progress for whoever watches a terminal, and plain lines for the log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath
from tqdm import tqdm

from bertjax.progress import Progress, silent

FORMAT = "%(asctime)s %(levelname)s %(message)s"


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
def log_to(run_dir: epath.Path) -> Iterator[None]:
    """Append bertjax's own log lines to `run_dir/log.txt`; to stderr too: all without a terminal,
    else warnings.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "log.txt").open("a") as file:
        on_screen = _Screen(logging.WARNING if sys.stderr.isatty() else logging.INFO)
        with _handled_by(logging.StreamHandler(file), on_screen, form=FORMAT):
            yield


@contextmanager
def warnings_of(process: str) -> Iterator[None]:
    """Of bertjax's own log lines only warnings, to stderr, with the name of the process that says
    so.
    """
    with _handled_by(_Screen(logging.WARNING), form=f"{process}: {FORMAT}"):
        yield


@contextmanager
def _handled_by(*handlers: logging.Handler, form: str) -> Iterator[None]:
    logger = logging.getLogger("bertjax")
    before = logger.level, logger.propagate
    for handler in handlers:
        handler.setFormatter(logging.Formatter(form))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        for handler in handlers:
            logger.removeHandler(handler)


class _Screen(logging.StreamHandler):
    """Writes above the progress bar, not through it."""

    def __init__(self, level: int):
        super().__init__()
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
