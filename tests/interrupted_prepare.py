"""A preparation that is killed or held at one of its writes.

    python -m tests.interrupted_prepare CONFIG_JSON OUTPUT ACTION ENDING COUNT

A preparation leaves nothing but files, each by `bertjax.storage.written_whole`. So a kill at any
moment leaves the same as one of these: at the `COUNT`th write of a file whose name has the
`ENDING`, before the file has its name (`kill`) or right after (`kill-after`). The kill takes the
process's whole group. `hold` creates `OUTPUT.held-PID` and waits there for its end; `count` prints
the number of writes. Each process counts its own writes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from bertjax import storage
from bertjax.config import Config, from_dict, to_dict

ROOT = Path(__file__).parents[1]


def start(config, output, action="count", ending="", count=0):
    """The process, in a group of its own."""
    words = [json.dumps(to_dict(config)), os.fspath(output), action, ending, str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.interrupted_prepare", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Interruption:
    """`storage.written_whole`, interrupted at one of its calls."""

    def __init__(self, output, action, ending, count):
        self.output, self.action, self.ending, self.count = output, action, ending, int(count)
        self.writes = 0
        self.write_whole = storage.written_whole

    @contextlib.contextmanager
    def __call__(self, path):
        with self.write_whole(path) as file:
            yield file
            self.writes += path.name.endswith(self.ending)
            here = self.writes == self.count and path.name.endswith(self.ending)
            if here and self.action == "kill":
                os.killpg(0, signal.SIGKILL)
            if here and self.action == "hold":
                Path(f"{self.output}.held-{os.getpid()}").touch()
                threading.Event().wait()
        if here and self.action == "kill-after":
            os.killpg(0, signal.SIGKILL)


# At import, not in `main`: worker processes import this module too.
if __name__ in ("__main__", "__mp_main__"):
    interruption = Interruption(*sys.argv[2:])
    # Under both names: that of the package, and that by which `write_whole` calls it.
    storage.written_whole = storage.files.written_whole = interruption


def main():
    from bertjax.data.preparation.prepare import prepare

    prepare(from_dict(Config, json.loads(sys.argv[1])), sys.argv[2])
    print(interruption.writes)


if __name__ == "__main__":
    main()
