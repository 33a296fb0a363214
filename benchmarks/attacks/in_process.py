"""A verb in this process: what it printed, and how it ended."""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacks.fuzz_test import fuzz_part
from attacks.processes import is_one_line
from attacks.result import ENDED_WELL, ONE_LINE, TRACEBACK, WAITED
from bertjax.cli.main import main
from bertjax.errors import UserError

outcome = fuzz_part("outcome")

LIMIT_S = 120.0
"""After this time a verb is interrupted."""
IDLE_CPU_S = 0.3
"""A verb of more than ten seconds that computes less than this has waited."""


@dataclass(frozen=True)
class Answer:
    """What a verb, or a function, gave."""

    verdict: str
    said: str = ""
    """The line of the mistake, or where the exception was raised."""
    values: Any = None
    warned: bool = False
    """True if something was logged as a warning."""


@dataclass
class _Warnings(logging.Handler):
    """Remembers whether there was a warning."""

    level: int = logging.WARNING
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.level)

    # Dataclasses with `==` have no hash, which the logging library needs.
    __hash__ = object.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def answer_of(read: Callable[[], Any], folder: Path) -> Answer:
    """Return what a function gives that reads something in `folder`, its working directory."""
    warnings = _Warnings()
    logger = logging.getLogger("bertjax")
    logger.addHandler(warnings)
    begin, cpu_begin = time.monotonic(), _cpu_seconds()
    try:
        with contextlib.chdir(folder), outcome.time_limit(LIMIT_S):
            values = read()
        answer = Answer(ENDED_WELL, values=values)
    except UserError as error:
        answer = Answer(ONE_LINE, str(error))
    except outcome.OutOfTime:
        answer = Answer(WAITED, f"interrupted after {LIMIT_S:.0f} s")
    except KeyboardInterrupt:
        raise
    # Whatever else comes is a traceback on the user's terminal.
    except BaseException as error:
        answer = Answer(
            TRACEBACK, f"{outcome.place_of_exception()}: {type(error).__name__}: {_short(error)}"
        )
    finally:
        logger.removeHandler(warnings)
    wall_s, cpu_s = time.monotonic() - begin, _cpu_seconds() - cpu_begin
    if wall_s > 10 and cpu_s < IDLE_CPU_S:
        return Answer(WAITED, f"{wall_s:.0f} s, {cpu_s:.0f} s of them computing; {answer.said}")
    return Answer(answer.verdict, answer.said[:300], answer.values, bool(warnings.seen))


def run(words: Sequence[str]) -> str:
    """Run a verb in the working directory; return what it printed.

    Raises `UserError` with its line for status 2, and what it raises for a traceback.
    """
    out, err = outcome.Stream(), outcome.Stream()
    err.reconfigure(errors="backslashreplace")
    stdin = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(words))
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        sys.stdin = stdin
    if "Traceback (most recent call last)" in err.text():
        raise RuntimeError(f"a traceback is printed: {_short(err.text().strip()[-200:])}")
    if status == 2:
        lines = err.text().strip().splitlines() or [""]
        if not is_one_line(err.text()):
            raise RuntimeError(f"status 2 without its line: {lines[-1]}")
        raise UserError(lines[-1])
    if status != 0:
        raise RuntimeError(f"status {status}: {_short(err.text()[-200:])}")
    return out.text()


def _cpu_seconds() -> float:
    """Return what this process has computed, and the processes of a pool that has ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]
