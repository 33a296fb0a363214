"""Protocol of the implementations of a training step with `benchmarks/step.py`.

An implementation is a process that gets a job in its command line, makes its step, and times it
when asked on its standard input. This file needs no package, since each process runs in an
environment of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Job = dict[str, Any]


class Step(NamedTuple):
    """A training step that is ready to run."""

    run: Callable[[int], float]
    """Runs a number of steps, waits for them, and returns the last one's loss."""
    peak_bytes: Callable[[], int | None]
    """Returns the peak of device memory; None where the memory of the process is what counts."""
    about: dict[str, Any]
    """Versions, and what else is to be written beside the times."""


def serve(make: Callable[[Job], Step]) -> None:
    """Make the step of the job in the command line, and time it for each number on stdin.

    Each answer is a line of JSON. The first has the seconds until a first step was done, the others
    the seconds of one step and those of all its cores together, and the last one, after the end of
    stdin, the peak memory.
    """
    job = json.loads(sys.argv[1])
    begin = time.perf_counter()
    step = make(job)
    loss = step.run(1)
    answer({"first_s": time.perf_counter() - begin, "loss": loss, **step.about})
    for line in sys.stdin:
        count = int(line)
        # Memory that the machine took from this process while it waited comes back in this step.
        step.run(1)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        loss = step.run(count)
        seconds = time.perf_counter() - begin
        cpu_seconds = time.process_time() - begin_cpu
        answer({"step_s": seconds / count, "cpu_s": cpu_seconds / count, "loss": loss})
    peak_bytes = step.peak_bytes()
    if peak_bytes is None:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kB on Linux
    answer({"peak_bytes": peak_bytes})


def answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)
