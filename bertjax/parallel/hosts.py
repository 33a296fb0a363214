"""Multi-process runs: starting the job, each process's rows of a batch, and stopping together.

A run has one process unless environment variables say otherwise (see `start`). `failures.py` makes
all processes of a run end together.
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
"""Variables by which a user describes a job: either all three are set, or none."""
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
"""Variables by which JAX recognizes a Slurm job; it needs all of them."""
# Text, as the environment has them. The first is JAX's own limit; with the second the others end
# within 60 s of a loss (`failures.py`).
START_SECONDS, HEARTBEAT_SECONDS = "300", "45"
MAX_SECONDS = 24 * 3600  # limit of waits that should have no limit, because the runtime needs one

# JAX's runtime notices a preemption by a signal handler in C. Python's `signal` can neither read
# nor set such a handler, so the C library's `signal` is called directly.
_libc = ctypes.CDLL(None)
# Without types ctypes would cut the addresses to C's int.
_libc.signal.restype, _libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
# Numbers of the messages of `from_first` and `to_first`. All processes make the same calls in the
# same order, so the same number stands for the same message.
_messages = itertools.count()
_runtime_sigterm: int | None = None  # the address of the handler that JAX's runtime has for SIGTERM


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Connect to the job's other processes; do nothing in a run of one process.

    This must be called before JAX is first asked for devices. The job is described in one of three
    ways: by `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`; by Slurm's variables, in a step of several tasks; or, with
    `BERTJAX_DISTRIBUTED=1`, by what JAX itself detects, for example on Cloud TPU. The processes
    wait `BERTJAX_START_SECONDS` (300) for each other. A process without a sign of life for
    `BERTJAX_HEARTBEAT_SECONDS` (45) counts as lost.

    Raises `UserError` if these variables are incomplete or contradict each other.
    """
    arguments = job_arguments(environment)
    if arguments is None:
        return
    try:
        jax.distributed.initialize(**arguments)
    except ValueError as error:
        expected = f"a machine on which JAX finds the other hosts, or {', '.join(EXPLICIT)} set"
        raise UserError(f"BERTJAX_DISTRIBUTED: found {error}, expected {expected}") from error
    # Python's handlers replace that of the runtime, so its address is kept for `forward_signal`.
    global _runtime_sigterm
    _runtime_sigterm = set_c_handler(signal.SIGTERM, None)
    leave_sigterm_to_runtime()


def job_arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the arguments of `jax.distributed.initialize`, or None for a run of one process.

    Raises `UserError` where the variables of `environment` are incomplete or out of range.
    """
    times = {
        "initialization_timeout": _whole_number(
            environment, "BERTJAX_START_SECONDS", 1, MAX_SECONDS, START_SECONDS
        ),
        "heartbeat_timeout_seconds": _whole_number(
            environment, "BERTJAX_HEARTBEAT_SECONDS", 5, MAX_SECONDS, HEARTBEAT_SECONDS
        ),
    }
    if any(environment.get(name) for name in EXPLICIT):
        job = _explicit_job(environment)
        return None if job is None else job | times
    if environment.get("BERTJAX_DISTRIBUTED", "0") not in ("", "0"):
        return times
    # In a shell of a Slurm allocation, SLURM_NTASKS is the number of tasks of the whole allocation,
    # but the shell is a step with only one task.
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if tasks != "1" and all(name in environment for name in SLURM):
        return {"cluster_detection_method": "slurm", **times}
    return None


def _explicit_job(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the job that the variables of `EXPLICIT` describe; None if it has one process."""
    given = [name for name in EXPLICIT if environment.get(name)]
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
    processes = _whole_number(environment, EXPLICIT[1], 1, 1 << 20)
    index = _whole_number(environment, EXPLICIT[2], 0, processes - 1)
    if processes == 1:
        return None
    return {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": index,
        # Otherwise JAX would ask the cluster for what is not given, the devices of each process:
        # under Slurm it would use one GPU per process.
        "cluster_detection_method": "deactivate",
    }


def _whole_number(
    environment: Mapping[str, str], name: str, low: int, high: int, default: str = ""
) -> int:
    value = environment.get(name) or default
    in_range = re.fullmatch(r"\d{1,9}", value) and low <= int(value) <= high
    expected = f"a whole number from {low} to {high}"
    check(in_range, where=name, found=value or "nothing", expected=expected)
    return int(value)


def lock_seconds(environment: Mapping[str, str] = os.environ) -> int:
    """Return `BERTJAX_LOCK_SECONDS` (0): how long a start waits for the lock of a run's folder.

    Launch scripts set it, which start a run again that was killed on another host: its lock expires
    only after a while. Raises `UserError` where it is no number of seconds.
    """
    return _whole_number(environment, "BERTJAX_LOCK_SECONDS", 0, MAX_SECONDS, "0")


def process_count() -> int:
    """Return the number of processes of this job.

    Unlike `jax.process_count`, this does not start JAX's backends. It may be called before `start`.
    """
    return distributed.global_state.num_processes


def is_multiprocess() -> bool:
    """Return True if this job has more than one process."""
    return process_count() > 1


def is_first() -> bool:
    """Return True on the one process that writes logs, metrics and reports."""
    return distributed.global_state.process_id == 0


def process_name() -> str:
    """Return the name of this process in messages, for example `process 1 of 4`."""
    return process_name_of(distributed.global_state.process_id)


def process_name_of(index: int) -> str:
    """Return the name in messages of the process with this 0-based index."""
    return f"process {index} of {process_count()}"


def coordinator_address() -> str:
    """Return HOST:PORT of process 0."""
    return distributed.global_state.coordinator_address or "an unknown address"


def client() -> Any:
    """Return the client of the job's key-value store and barriers, which process 0 keeps."""
    return distributed.global_state.client


def from_first(text: str) -> str:
    """Return, on every process, the text that the first process passes.

    All processes must make these calls in the same order. The others wait up to a day for the first
    process.
    """
    if not is_multiprocess():
        return text
    name = f"bertjax/said/{next(_messages)}"
    if is_first():
        client().key_value_set(name, text)
        return text
    return client().blocking_key_value_get(name, MAX_SECONDS * 1000)


class FirstSays:
    """What the first process says again and again, such as once in each update.

    All processes call it equally often. The messages of `from_first` are few, and stay with process
    0 until the job ends; these are removed.
    """

    def __init__(self) -> None:
        """All processes must make these, and call `from_first`, in the same order."""
        self._name = f"bertjax/again/{next(_messages)}"
        self.count = 0
        """Number of messages so far."""

    def __call__(self, text: str, heard: int) -> str:
        """Return, on every process, the text that the first process passes.

        Every process has heard at least the first `heard` messages. This removes them.
        """
        number, self.count = self.count, self.count + 1
        if not is_multiprocess():
            return text
        if not is_first():
            return client().blocking_key_value_get(self._key(number), MAX_SECONDS * 1000)
        client().key_value_set(self._key(number), text)
        if heard > 0:
            # Those before it were removed by the calls before.
            client().key_value_delete(self._key(heard - 1))
        return text

    def _key(self, number: int) -> str:
        return f"{self._name}/{number}"


def to_first(text: str) -> list[str]:
    """Return, on the first process, the texts that all processes pass; on the others nothing.

    All processes must make these calls, and those of `from_first`, in the same order.
    """
    if not is_multiprocess():
        return [text]
    name = f"bertjax/told/{next(_messages)}"
    if not is_first():
        client().key_value_set(f"{name}/{distributed.global_state.process_id}", text)
        return []
    others = [f"{name}/{index}" for index in range(1, process_count())]
    texts = [client().blocking_key_value_get(key, MAX_SECONDS * 1000) for key in others]
    client().key_value_delete(name)
    return [text, *texts]


def agree(value: bool) -> bool:
    """Return the first process's `value` on every process, so that all take the same branch.

    All processes must call it; the calls of `agree` and `from_first` must have the same order.
    """
    return from_first(str(bool(value))) == str(True)


def set_c_handler(number: int, address: int | None) -> int | None:
    """Make the C function at `address` handle the signal `number`; return the previous address.

    None stands for the system's default action. Python's `signal` does not know these handlers.
    """
    return _libc.signal(number, address)


def forward_signal(number: int) -> None:
    """Call JAX's handler for a signal that Python caught, so that all processes stop together."""
    if _runtime_sigterm:
        ctypes.CFUNCTYPE(None, ctypes.c_int)(_runtime_sigterm)(number)


def leave_sigterm_to_runtime() -> None:
    """Let JAX's runtime alone handle SIGTERM from now on; do nothing in a run of one process."""
    if _runtime_sigterm:
        set_c_handler(signal.SIGTERM, _runtime_sigterm)


def should_stop_after(step: int, signalled: bool) -> bool:
    """Return True if the run must end after `step`, because a signal reached some process.

    All processes get the same answer for the same step. Every process must call this after each of
    its steps, and number the steps without a gap: JAX chooses a step that no process has passed
    yet, about a second after the signal. A run of one process stops if `signalled` is True.
    """
    if not is_multiprocess():
        return signalled
    return multihost_utils.reached_preemption_sync_point(step)


def global_batch(
    mesh: Mesh, local_batch: Mapping[str, np.ndarray], batch_size: int
) -> dict[str, jax.Array]:
    """Return this process's rows of a batch as global arrays, sharded over the mesh's batch axes.

    `local_batch` has the rows that `process_row_indices` lists, in that order. `batch_size` is the
    size of the global batch. The arrays are [batch_size, ...].
    """
    batch = {}
    for name, values in local_batch.items():
        # Without global_shape JAX infers the shape, and the result is wrong if several processes
        # hold the same rows.
        global_shape = (batch_size, *values.shape[1:])
        batch[name] = jax.make_array_from_process_local_data(
            batch_sharding(mesh), values, global_shape
        )
    return batch


def process_row_indices(mesh: Mesh, batch_size: int, process: int | None = None) -> np.ndarray:
    """Return the indices of the global batch's rows that a process's devices hold.

    They are int64 and ascending; the default is this process. `batch_size` is a multiple of
    `batch_parts(mesh)`. The rows need not be consecutive: a mesh follows the links between the
    chips of a slice, and the 2 x 2 chips of a host lie on two of its lines. If devices of several
    processes share the work on a row, each of these processes has the row.
    """
    process = jax.process_index() if process is None else process
    slices = batch_sharding(mesh).devices_indices_map((batch_size,))
    # A set: devices along tensor and sequence hold the same rows.
    parts = set()
    for device, (row_slice,) in slices.items():
        if device.process_index == process:  # type: ignore[attr-defined]
            start, stop, _ = row_slice.indices(batch_size)
            parts.add((start, stop))
    return np.concatenate([np.arange(start, stop) for start, stop in sorted(parts)])
