"""What the implementations of a training step have in common: told a job, each makes its step, and
times it when asked.

Needs no package, since each runs in an environment of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Job = dict[str, Any]


class Step(NamedTuple):
    """A training step that is ready."""

    run: Callable[[int], float]
    """Takes so many steps, waits for them, and gives the last one's loss."""
    peak_bytes: Callable[[], int | None]
    """The most device memory so far; None where the process's own is what counts."""
    about: dict[str, Any]


def serve(make: Callable[[Job], Step]) -> None:
    """Make the step of the job in the command line; then for each number on stdin say the seconds
    of a step.

    The first line has the seconds until a first step was done, the last one, after stdin has ended,
    the peak memory.
    """
    job = json.loads(sys.argv[1])
    begin = time.perf_counter()
    step = make(job)
    loss = step.run(1)
    say({"first_s": time.perf_counter() - begin, "loss": loss, **step.about})
    for line in sys.stdin:
        count = int(line)
        begin = time.perf_counter()
        loss = step.run(count)
        say({"step_s": (time.perf_counter() - begin) / count, "loss": loss})
    peak = step.peak_bytes()
    say(
        {
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if peak is None
            else peak
        }
    )


def say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)
