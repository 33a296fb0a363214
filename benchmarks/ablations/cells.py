"""The processes that measure cells, one a core, and the seconds of a run."""

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Function from a line for a worker to its answer."""


class Worker:
    """A process of `worker.py`, pinned to one core."""

    def __init__(self, core: int, output: Path) -> None:
        self.output = output
        paths = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
        with output.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ablations.worker", str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": paths},
            )

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one line; end with a message if the process ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{self.output}: the worker ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """Wait for the end of the process, which sees the end of its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def on_cores(cores: Sequence[int], folder: Path, work: Iterable[Callable[[Ask], None]]) -> None:
    """Do each piece of work with a worker on a core; a core has one piece at a time.

    A piece gets the function that asks its worker. The first failure ends what has not begun; it is
    raised when the other cores are done.
    """
    waiting: SimpleQueue[Callable[[Ask], None]] = SimpleQueue()
    for piece in work:
        waiting.put(piece)
    failures: list[BaseException] = []

    def take(core: int) -> None:
        worker = None
        try:
            while not failures:
                piece = waiting.get_nowait()
                worker = worker or Worker(core, folder / f"worker-{core}.txt")
                piece(worker.ask)
        except Empty:
            pass
        except BaseException as error:
            failures.append(error)
        if worker is not None:
            worker.close()

    threads = [threading.Thread(target=take, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def cpu_seconds(marks: Sequence[dict[str, Any]], compiled: Sequence[int] = ()) -> float:
    """Return the CPU seconds of a run's steps from the marks of its processes.

    `marks` are the lines of `cpu_seconds.jsonl`: start, step, CPU seconds of the process. Steps
    that a killed process did and the next one did again count once, as the later one did them. An
    interval in which a program was compiled tells nothing of its steps, so they cost as much as
    the median of the others of the same program: the first interval of each start, and those in
    which are the steps `compiled`.
    """
    intervals: dict[int, tuple[int, float | None]] = {}
    before: dict[str, Any] | None = None
    for mark in marks:
        begins = before is None or before["start"] != mark["start"]
        if begins or before is None:
            start = (
                0 if before is None else max((e for e in intervals if e < mark["step"]), default=0)
            )
            cost = None
        else:
            start = before["step"]
            cost = mark["seconds"] - before["seconds"]
        if any(start <= step < mark["step"] for step in compiled):
            cost = None
        for end in [e for e in intervals if start < e]:
            del intervals[end]
        intervals[mark["step"]] = (start, cost)
        before = mark
    stages = [0, *compiled, max(intervals, default=0)]
    rates: dict[int, list[float]] = {}
    for end, (start, cost) in intervals.items():
        if cost is not None:
            rates.setdefault(_stage(stages, end), []).append(cost / (end - start))
    every = [rate for own in rates.values() for rate in own]
    if not every:
        raise SystemExit("too few steps were marked: expected 20 or more in one process")
    total = 0.0
    for end, (start, cost) in intervals.items():
        if cost is None:
            cost = (end - start) * statistics.median(rates.get(_stage(stages, end), every))
        total += cost
    return total


def _stage(stages: Sequence[int], end: int) -> int:
    """Return the number of the program that the steps before `end` ran."""
    return max(number for number, begin in enumerate(stages) if begin < end)
