"""A verb as a process of its own: watched, killed, and what became of it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attacks.result import ONE_LINE, TRACEBACK, WAITED

TICK_S = 0.02
IDLE_LIMIT_S = 10.0
EXCEPTION = re.compile(r"bertjax: |[\w.]*(Error|Exception|Interrupt): ")
"""The line of a mistake, or the last part of a traceback."""
SAMPLE_S = 0.2
SAMPLES = 25
BUSY_SAMPLES = 3
"""Of `SAMPLES` or more in `IDLE_LIMIT_S`, fewer with a thread that runs, or could, mean waiting.

Computing time would not do: on a busy machine a process may get next to none. Nor would the clock
alone: this script may get none either.
"""
LIMIT_S = 600.0


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """As `subprocess` says it: negative for a signal."""
    out: str
    err: str
    wall_s: float
    cpu_s: float
    waited: bool
    """True if it did not compute for ten seconds."""

    def verdict(self) -> str:
        """Return what is to be said of it, empty for status 0."""
        if "Traceback (most recent call last)" in self.err:
            return TRACEBACK
        if self.waited:
            return WAITED
        if self.status == 0:
            return ""
        return ONE_LINE if self.status == 2 and is_one_line(self.err) else TRACEBACK

    def last_line(self) -> str:
        """Return the line that says how it ended, shortened."""
        lines = self.err.strip().splitlines() or [""]
        # An exception's text may have many lines, of which the first says most.
        told = [line for line in lines if EXCEPTION.match(line)]
        return (told or lines)[-1][:300]


def is_one_line(err: str) -> bool:
    """Return whether the last line, and no other, is that of a user's mistake."""
    lines = [line for line in err.splitlines() if line.startswith("bertjax: ")]
    return len(lines) == 1 and err.rstrip().endswith(lines[0])


class Process:
    """A running verb, in a group of its own."""

    def __init__(self, words: Sequence[str], cwd: Path):
        # Files, because a full pipe would stop the process. `end` closes them.
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self._begin = time.monotonic()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "bertjax.cli.main", *words],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )
        self._cpu_s = 0.0
        self._advanced = self._begin
        """When the process was last seen at work."""
        self._sampled = self._begin
        self._samples = self._busy = 0
        self._waited = False

    def running(self) -> bool:
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """Return the time that the process and what it started have computed."""
        self._cpu_s = max(self._cpu_s, _cpu_seconds(self._popen.pid))
        return self._cpu_s

    def wait_for(self, moment: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
        """Wait until `moment`, or the end of the process; return true if it is running then."""
        while self.running():
            if moment():
                return True
            self._note_idleness()
            if time.monotonic() - self._begin > limit_s:
                self._waited = True
                self.kill(group=True)
            time.sleep(TICK_S)
        return False

    def _note_idleness(self) -> None:
        now = time.monotonic()
        if now - self._sampled < SAMPLE_S:
            return
        self._sampled = now
        # Remembered, because a process that has ended has no times.
        self.cpu_seconds()
        self._samples += 1
        self._busy += _is_busy(self._popen.pid)
        if self._busy >= BUSY_SAMPLES:
            self._samples, self._busy, self._advanced = 0, 0, now
        elif self._samples >= SAMPLES and now - self._advanced > IDLE_LIMIT_S:
            self._waited = True

    def kill(self, *, group: bool) -> None:
        """Send SIGKILL: to the process alone, or also to the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self._popen.pid, signal.SIGKILL)
            else:
                self._popen.kill()
        self._popen.wait()

    def end(self) -> Ended:
        """Wait for the end of the process, and return how it ended."""
        self.wait_for(lambda: False)
        return Ended(
            status=self._popen.wait(),
            out=_text(self._out),
            err=_text(self._err),
            wall_s=round(time.monotonic() - self._begin, 2),
            cpu_s=round(self._cpu_s, 2),
            waited=self._waited,
        )


def run(words: Sequence[str], cwd: Path) -> Ended:
    """Run a verb until it ends."""
    return Process(words, cwd).end()


def _text(file: "tempfile._TemporaryFileWrapper[bytes]") -> str:
    file.seek(0)
    text = file.read().decode(errors="replace")
    file.close()
    return text


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its ended children, and those that run."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    if not fields:
        return 0.0
    # utime, stime, cutime, cstime
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(_cpu_seconds, _children(pid)))


def _is_busy(pid: int) -> bool:
    """Return whether a thread of a process or of its children runs, could run, or reads a disk."""
    states = [_stat(thread / "stat")[:1] for thread in _threads(pid)]
    return any(state in (["R"], ["D"]) for state in states) or any(map(_is_busy, _children(pid)))


def _children(pid: int) -> list[int]:
    children = []
    for thread in _threads(pid):
        # Threads end meanwhile.
        with contextlib.suppress(OSError):
            children += map(int, (thread / "children").read_text().split())
    return children


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _stat(path: Path) -> list[str]:
    """Return the fields of `stat` that follow the name; none if the process has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []
