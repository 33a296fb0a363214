"""A command that is killed at one of its changes of the disk, or after a time, by SIGKILL.

    python -m tests.killed MODULE:FUNCTION MODULE ...

The process imports the modules once, then forks a process for each request: a line of JSON on
standard input. `FUNCTION(words)` runs there, and its result is the exit status. Changes are the
calls of Python that make, rename or remove something in the folder `watched`; other libraries'
are not seen, so requests may kill `after` seconds as well.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    """Exit status; -9 where it was killed."""
    changes: int
    """Changes of the disk; 0 where it was killed."""
    seconds: float
    out: str
    errors: str


class Commands:
    """Commands that may be killed, from one process that has imported all they need."""

    def __init__(self, function, *modules):
        self.environment = {
            name: value
            for name, value in os.environ.items()
            # One device, as users have; a test has eight.
            if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
        }
        # Without a restart for huge pages, which would forget the request.
        self.environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed", function, *modules],
            cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, words, watched="", *, at=0, after=0.0):
        """Run a command; kill it before its change number `at`, or `after` seconds."""
        request = {"words": [*map(str, words)], "watched": str(watched), "at": at, "after": after}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self):
        self._process.stdin.close()
        self._process.wait()


class Changes:
    """Counts changes in a folder, and kills the process before one of them."""

    def __init__(self, watched, at):
        self._watched, self._at, self.count = os.path.realpath(watched), at, 0

    def __call__(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, int) and os.fspath(path).startswith(self._watched):
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def serve(function, requests, answers):
    for line in requests:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("out", "errors", "changes")]
            begin = time.monotonic()
            pid = os.fork()
            if pid == 0:
                run(function, request, files)
            timer = threading.Timer(request["after"], os.kill, (pid, signal.SIGKILL))
            if request["after"]:
                timer.start()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            timer.cancel()
            out, errors, changes = (file.read_text() if file.exists() else "" for file in files)
        answers.write(
            json.dumps([status, int(changes or 0), time.monotonic() - begin, out, errors]) + "\n"
        )
        answers.flush()


def run(function, request, files):
    """Run the command in this forked process, and end it."""
    for number, file in zip((1, 2), files, strict=False):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    changes = Changes(request["watched"] or "/nowhere", request["at"])
    sys.addaudithook(changes)
    status = 1
    try:
        status = function(request["words"])
    except SystemExit as ending:
        status = ending.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        files[2].write_text(str(changes.count))
        os._exit(status)


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    for each in sys.argv[2:]:
        importlib.import_module(each)
    # The answers keep a descriptor of their own: what a library prints does not come between.
    with os.fdopen(os.dup(1), "w") as answers_file:
        os.dup2(2, 1)
        serve(getattr(importlib.import_module(module), name), sys.stdin, answers_file)
