"""A line in the log before programs are compiled, which takes long and shows nothing else."""

import logging
from collections.abc import Hashable
from functools import cache

log = logging.getLogger("bertjax")


def announce_compilation(what: str) -> None:
    """Log that programs of `what` are compiled next.

    Without this line, a log that goes to a file ends for minutes where a run begins.
    """
    log.info(
        "compiling %s: this takes seconds to minutes, and less where it was compiled before", what
    )


@cache
def announce_once(what: str, program: Hashable = None) -> None:
    """Log the same once in a process: for functions that a program may call often.

    With `program`, what the compiled program depends on, it is once for each of them.
    """
    announce_compilation(what)


def forget_announced() -> None:
    """Let `announce_once` log everything again: each run's own log is to have the lines."""
    announce_once.cache_clear()
