"""Jobs of several processes on this machine, as a launch script starts them."""

import contextlib
import dataclasses
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import LIMIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    """A port that nobody listens at.

    It is below those that the system gives to connections (32,768 and more on Linux): one of these
    could be given to another process before the job binds it.
    """
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


@dataclasses.dataclass
class Job:
    processes: list
    outputs: list

    def said(self, index):
        return self.outputs[index].read_text()

    def wait(self):
        """The exit statuses, once all processes have ended; fails after `LIMIT_SECONDS`."""
        deadline = time.monotonic() + LIMIT_SECONDS
        try:
            return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]
        finally:
            for p in self.processes:
                if p.poll() is None:
                    p.kill()


def start(folder, words, count, devices=1, **environment):
    """`python -m WORDS` in `count` processes of `devices` devices each.

    Each writes its stdout and stderr to a file of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address, job = f"127.0.0.1:{free_port()}", Job([], [])
    for index in range(count):
        # NPROC: threads of XLA, which needs more than there may be cores, or collectives wait for
        # one another.
        env = dict(
            os.environ,
            JAX_NUM_CPU_DEVICES=str(devices),
            NPROC="16",
            PYTHONPATH=str(ROOT),
            **environment,
        )
        if count > 1:
            env |= {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
            }
        path = folder / f"{index}.txt"
        with path.open("w") as file:
            command = [sys.executable, "-u", "-m", *map(str, words)]
            job.processes.append(
                subprocess.Popen(command, stdout=file, stderr=file, env=env, cwd=folder)
            )
        job.outputs.append(path)
    return job
