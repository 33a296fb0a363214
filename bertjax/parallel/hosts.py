"""What differs when a run is several processes: meeting, each one's rows of a batch, and agreeing
when to stop.

A run is one process, unless its environment says otherwise (`start`). How it ends together is in
`failures.py`.
"""

import ctypes
import itertools
import os
import re
import signal
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the job's key-value store, which JAX gives by no public name
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from bertjax.errors import UserError, check
from bertjax.parallel.rules import batch_sharding

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
START_SECONDS, HEARTBEAT_SECONDS = "300", "45"
LONGEST = 24 * 3600

_libc = ctypes.CDLL(None)
_libc.signal.restype, _libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
_sayings = itertools.count()
_runtime_sigterm: int | None = None  # the address of the handler that JAX's runtime has for SIGTERM


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Meet the job's other processes, before JAX is first asked for devices; nothing where there
    are none.

    They are told of by `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`; or by Slurm, in a step of several tasks; or found by JAX itself, on Cloud TPU
    and others, where `BERTJAX_DISTRIBUTED=1`. `BERTJAX_START_SECONDS` (300) is how long they wait
    for one another, `BERTJAX_HEARTBEAT_SECONDS` (45) how long without a sign of life one is held
    for lost.

    Raises `UserError` where these variables make no sense.
    """
    arguments = job_arguments(environment)
    if arguments is None:
        return
    try:
        jax.distributed.initialize(**arguments)
    except ValueError as error:
        expected = f"a machine on which JAX finds the other hosts, or {', '.join(EXPLICIT)} set"
        raise UserError(f"BERTJAX_DISTRIBUTED: found {error}, expected {expected}") from error
    # Python's handlers replace it, so it is kept to be called by `pass_on`.
    global _runtime_sigterm
    _runtime_sigterm = set_c_handler(signal.SIGTERM, None)
    leave_sigterm_to_runtime()


def job_arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be given in `environment`; None for a run of one
    process.
    """
    times = {
        "initialization_timeout": _whole(
            environment, "BERTJAX_START_SECONDS", 1, LONGEST, START_SECONDS
        ),
        "heartbeat_timeout_seconds": _whole(
            environment, "BERTJAX_HEARTBEAT_SECONDS", 5, LONGEST, HEARTBEAT_SECONDS
        ),
    }
    given = [name for name in EXPLICIT if environment.get(name)]
    if given:
        missing = [name for name in EXPLICIT if name not in given]
        check(
            not missing,
            where=" and ".join(missing),
            found="nothing",
            expected=f"a value, as {' and '.join(given)} is set",
        )
        address = environment[EXPLICIT[0]]
        check(
            re.fullmatch(r"\S+:\d{1,5}", address),
            where=EXPLICIT[0],
            found=address,
            expected="HOST:PORT of process 0",
        )
        processes = _whole(environment, EXPLICIT[1], 1, 1 << 20)
        index = _whole(environment, EXPLICIT[2], 0, processes - 1)
        place = {"coordinator_address": address, "num_processes": processes, "process_id": index}
        return (
            {**place, "cluster_detection_method": "deactivate", **times} if processes > 1 else None
        )
    if environment.get("BERTJAX_DISTRIBUTED", "0") not in ("", "0"):
        return times
    # A shell in a Slurm allocation knows of its tasks, but is a step of one.
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if tasks != "1" and all(name in environment for name in SLURM):
        return {"cluster_detection_method": "slurm", **times}
    return None


def _whole(
    environment: Mapping[str, str], name: str, low: int, high: int, default: str = ""
) -> int:
    value = environment.get(name) or default
    good = re.fullmatch(r"\d{1,9}", value) and low <= int(value) <= high
    check(
        good, where=name, found=value or "nothing", expected=f"a whole number from {low} to {high}"
    )
    return int(value)


def count() -> int:
    """The number of processes of this job."""
    return distributed.global_state.num_processes


def several() -> bool:
    """Whether this process is one of several."""
    return count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes logs, metrics and reports."""
    return distributed.global_state.process_id == 0


def place() -> str:
    """This process in words, such as `process 1 of 4`."""
    return place_of(distributed.global_state.process_id)


def place_of(index: int) -> str:
    """The process `index` (0-based) of this job in words."""
    return f"process {index} of {count()}"


def meeting_point() -> str:
    """HOST:PORT of process 0."""
    return distributed.global_state.coordinator_address or "an unknown address"


def client() -> Any:
    """The job's key-value store and barriers, kept by process 0."""
    return distributed.global_state.client


def from_first(text: str) -> str:
    """What the first process calls this with, on every process; all call it, in the same order of
    calls.

    Waits for the first as long as it needs.
    """
    if not several():
        return text
    name = f"bertjax/said/{next(_sayings)}"
    if is_first():
        client().key_value_set(name, text)
        return text
    return client().blocking_key_value_get(name, LONGEST * 1000)


def set_c_handler(number: int, address: int | None) -> int | None:
    """Make the C function at `address` (None: what the system does by itself) handle a signal;
    returns the one before.

    Of these handlers Python's `signal` knows nothing.
    """
    return _libc.signal(number, address)


def pass_on(number: int) -> None:
    """Let JAX's runtime know of a signal that Python caught, so that all processes agree on where
    to stop.
    """
    if _runtime_sigterm:
        ctypes.CFUNCTYPE(None, ctypes.c_int)(_runtime_sigterm)(number)


def leave_sigterm_to_runtime() -> None:
    """From now on SIGTERM is only noted, by JAX's runtime; nothing in a run of one process."""
    if _runtime_sigterm:
        set_c_handler(signal.SIGTERM, _runtime_sigterm)


def stops_after(step: int, signalled: bool) -> bool:
    """Whether the run is to end after `step` because a process was told to by a signal: all say so
    at the same step.

    Every process must ask after each of its steps, and number them without a gap. It takes about a
    second after the signal.
    """
    return multihost_utils.reached_preemption_sync_point(step) if several() else signalled


def global_batch(
    mesh: Mesh, rows: Mapping[str, np.ndarray], batch_size: int
) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays, cut over the mesh's batch axes.

    `rows` are those of `process_rows`, in that order; `batch_size` is the size of the whole batch.
    """
    layout = batch_sharding(mesh)
    # global_shape is given always: without it JAX infers one, and infers wrongly where
    # the batch does not span the processes.
    return {
        name: jax.make_array_from_process_local_data(
            layout, values, (batch_size, *values.shape[1:])
        )
        for name, values in rows.items()
    }


def process_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> np.ndarray:
    """The rows of the global batch, int64 ascending, that a process's devices hold (default: this
    process's).

    `batch_size` divides by the batch's parts. The rows need not follow on one another: a mesh lies
    along the wires of a slice, and a host's 2 x 2 chips lie on two lines of it. Where devices of
    several processes share a row's work, each of them has the row.
    """
    process = jax.process_index() if process is None else process
    held = batch_sharding(mesh).devices_indices_map((batch_size,)).items()
    parts = set()
    for device, index in held:
        if device.process_index == process:  # type: ignore[attr-defined]
            parts.add(index[0].indices(batch_size)[:2])
    return np.concatenate([np.arange(*part) for part in sorted(parts)])
