"""What came of a command line, run in this process: right, refused in one line, or a fault."""

import contextlib
import io
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.cli.main import main
from tests.cli.fuzz.workplace import inside


class OutOfTime(BaseException):
    """The command is still at work at the limit."""


@dataclass(frozen=True)
class Outcome:
    """What a command line gave."""

    status: int | None
    """Exit status; None if the command ended by an exception or not at all."""
    out: str
    err: str
    fault: str
    """What is wrong with it in one line; empty for nothing."""


def run(words: Sequence[str], folder: Path, *, limit: float = 60.0, stdin: bytes = b"") -> Outcome:
    """Run a command line inside `folder`; after `limit` seconds it counts as hanging."""
    out, err = Stream(), Stream()
    status, fault = None, ""
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with inside(folder), time_limit(limit), _redirected(out, err):
            status = main(list(words))
    except SystemExit as stop:
        status = 0 if stop.code in (0, None) else 1
        fault = "" if status == 0 else f"SystemExit {stop.code}"
    except OutOfTime:
        fault = f"hangs: {place_of_exception()}"
    # Whatever leaves `main` is a traceback on the user's terminal.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = (
            f"{place_of_exception()}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        )
    finally:
        sys.stdin = before
    said = err.text()
    return Outcome(status, out.text(), said, fault or _form(status, said))


def _form(status: int | None, err: str) -> str:
    """Return what is wrong with a status and what is said beside it."""
    if "Traceback (most recent call last)" in err:
        return f"a traceback is printed: {err.strip().splitlines()[-1][:200]}"
    if status == 2:
        last = err.rstrip("\n").rpartition("\n")[2]
        return "" if last.startswith(("bertjax: ", "usage: ")) else f"no line: {err[-200:]!r}"
    return "" if status == 0 else f"status {status}"


def place_of_exception() -> str:
    """Return the innermost lines of bertjax at which the exception came up."""
    trace = sys.exc_info()[2]
    frames = [frame for frame in traceback.extract_tb(trace) if "/bertjax/" in frame.filename]
    inner = frames[-2:]
    places = [f"{frame.filename.rpartition('/bertjax/')[2]}:{frame.lineno}" for frame in inner]
    return " < ".join(reversed(places))


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after some seconds, also while it waits for a file."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Stream(io.TextIOWrapper):
    """A stream of text in memory that can be reconfigured, as those of a process."""

    def __init__(self) -> None:
        # As Python opens stdout where the locale is UTF-8; stderr takes any text.
        super().__init__(io.BytesIO(), encoding="utf-8", errors="strict")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(errors="replace")


@contextlib.contextmanager
def _redirected(out: Stream, err: Stream) -> Iterator[None]:
    # Python's own stderr: a text that no encoding has is shown by escapes.
    err.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
