"""`log.txt`: the log lines of a run, in its folder."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from etils import epath

FILE = "log.txt"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def log_to_file(run_dir: epath.Path, earlier: Iterable[logging.LogRecord] = ()) -> Iterator[None]:
    """Append what bertjax logs meanwhile, from level INFO on, to `run_dir/log.txt`.

    The records `earlier`, which were logged before there was a folder, come first. Other handlers
    get the lines as well: those of the program that calls this, or of the command.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / FILE).open("a") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter(FORMAT))
        for record in earlier:
            handler.handle(record)
        with _listening(handler):
            yield


@contextmanager
def collected_log() -> Iterator[list[logging.LogRecord]]:
    """Collect what bertjax logs meanwhile, from level INFO on, for a later `log_to_file`."""
    handler = _Collector()
    with _listening(handler):
        yield handler.records


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
