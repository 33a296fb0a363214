"""The process of a runtime: `python -m … worker RUNTIME FOLDER THREADS PARENT`.

It answers messages (`wire.py`) until its input ends. `run` computes outputs, `time` computes them
several times and returns the seconds of each call.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from bertjax.compression.runtimes import wire
from bertjax.compression.runtimes.programs import PROGRAMS, Program
from bertjax.errors import one_line


def main(arguments: list[str]) -> int:
    """Answer messages until the input ends; return the exit status."""
    runtime, folder, threads, parent = arguments
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    # Libraries print: what is not an answer goes to the standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        program = PROGRAMS[runtime](Path(folder), int(threads))
    # Whatever a runtime raises for a file, it is the file's: the other process says it in one line.
    except Exception as error:
        wire.send(answers, {"error": _described(error)})
        return 0
    facts: dict[str, Any] = {"version": program.version, "outputs": list(program.outputs)}
    # Not all runtimes tell what they have in memory.
    facts["stored"] = getattr(program, "stored", {})
    wire.send(answers, facts)
    questions = sys.stdin.buffer
    while True:
        try:
            question = wire.receive(questions)
        except EOFError:
            return 0
        _answer(program, question, answers)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, whose kill it would notice only between two calls."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _answer(program: Program, question: wire.Message, answers: IO[bytes]) -> None:
    header, inputs = question
    try:
        if header["calls"] == 0:
            values = program.run(program.prepare(inputs), header["outputs"])
            wire.send(answers, {}, program.arrays(values))
        else:
            seconds = _timed(program, inputs, header)
            wire.send(answers, {}, {"seconds": seconds})
    # As above: a row that is too long, an operator without a kernel.
    except Exception as error:
        wire.send(answers, {"error": _described(error)})


def _timed(program: Program, inputs: dict[str, np.ndarray], header: dict[str, Any]) -> np.ndarray:
    """Return the seconds of each of `header["calls"]` calls, float64 [calls]."""
    seconds = np.empty(header["calls"])
    prepared = program.prepare(inputs)
    for call in range(header["calls"]):
        begin = time.perf_counter()
        program.run(prepared, header["outputs"])
        seconds[call] = time.perf_counter() - begin
    wait_until_quiet()
    return seconds


def wait_until_quiet(longest: float = 1.0) -> None:
    """Return when no other thread of this process is running, after `longest` seconds at most.

    After a call a runtime's threads look for work in a loop before they sleep: those of ONNX
    Runtime 1.32 for 35 to 50 ms. Meanwhile the model whose turn is next would lack a CPU.
    """
    end = time.perf_counter() + longest
    while time.perf_counter() < end:
        time.sleep(0.01)
        if not _has_running_thread():
            return


def _has_running_thread() -> bool:
    """Return whether another thread of this process runs, or waits for a CPU to run on.

    Its CPU time would not tell: on a machine with other work it may get none for a while. Systems
    without `/proc` do not say; there the answer is always yes.
    """
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return True
    for task in tasks.iterdir():
        if int(task.name) != threading.get_native_id():
            try:
                stat = (task / "stat").read_text()
            except OSError:
                continue  # it has ended
            # The state follows the name of the thread, which may have any character (proc(5)).
            if stat.rpartition(")")[2].split()[0] == "R":
                return True
    return False


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
