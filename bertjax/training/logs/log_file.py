"""`log.txt`: the log lines of a run, in its folder."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from etils import epath

from bertjax.errors import disk_errors
from bertjax.parallel.announce import forget_announced
from bertjax.training.logs.side_file import AppendedFile, to_lines

FILE = "log.txt"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def log_to_file(run_dir: epath.Path, earlier: Iterable[logging.LogRecord] = ()) -> Iterator[None]:
    """Append what bertjax logs meanwhile, from level INFO on, to `run_dir/log.txt`.

    The records `earlier`, which were logged before there was a folder, come first. Other handlers
    get the lines as well: those of the program that calls this, or of the command. Lines that
    cannot be written are kept until they can be.
    """
    forget_announced()
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    file = AppendedFile(run_dir / FILE)
    handler = _Lines(file)
    handler.setFormatter(logging.Formatter(FORMAT))
    for record in earlier:
        handler.handle(record)
    with _listening(handler):
        try:
            yield
        finally:
            file.append([])


@contextmanager
def collected_log() -> Iterator[list[logging.LogRecord]]:
    """Collect what bertjax logs meanwhile, from level INFO on, for a later `log_to_file`."""
    handler = _Collector()
    with _listening(handler):
        yield handler.records


class _Lines(logging.Handler):
    """A handler that appends lines to a file of a run."""

    def __init__(self, file: AppendedFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        # A wrong call of the logger; `logging` shows it, and goes on.
        except Exception:
            self.handleError(record)
            return
        self._file.append(to_lines([line]))


class _Collector(logging.Handler):
    """A handler that keeps the records in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("bertjax")
    level = logger.level
    logger.addHandler(handler)
    # Loggers start at WARNING, and would drop these lines before a handler sees them.
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
