"""Common end of a run of several processes: if one fails, all report the cause and end.

What ends one process, and how soon the others end:

- an exception: all end within seconds, with the exit status of the process that failed (2 for a
  user's mistake);
- a kill, a crash or a lost host: the others end with status 1 a few seconds after
  `BERTJAX_HEARTBEAT_SECONDS`, by default after 60 s in total. They end at once if the network
  reports the broken connection, as it does to CPU collectives.

Each message names its process: `bertjax: process 1 of 4: …`.
"""

import ctypes
import errno
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from bertjax.errors import UserError, one_line
from bertjax.parallel import hosts
from bertjax.storage import release_held

POLL_SECONDS = 1.0  # time between two checks whether another process has failed
RELEASE_SECONDS = 2.0  # the locks of folders are released within this time, or left to expire
REPORT_SECONDS = 5.0  # a living process reports a failure that concerns it within this time
# Texts of the errors with which JAX, its collectives and its coordination service report a lost
# process. These errors have no type of their own.
LOST_CONTACT = re.compile(
    r"Gloo|NCCL|coordination|heartbeat|Socket closed|Connection (closed|reset)|unhealthy", re.I
)

# Held by the thread that ends this process: the main thread (`_fail`), the watching thread
# (`_watch`) and JAX's runtime (`_aborted`) may all try to, and one message is to be printed.
_ending = threading.Lock()
_connected = threading.Event()


class Failure(NamedTuple):
    """A process's report of its failure."""

    status: int
    """Exit status."""
    text: str
    """The cause in one line."""
    lost: bool
    """True if this process only lost contact with another one, which is then the cause."""


@contextmanager
def end_together() -> Iterator[None]:
    """Connect to the job's other processes (`hosts.start`), and end all if one fails in the block.

    In a run of one process this does nothing. In a run of several, no exception leaves the block:
    the process ends here, because JAX's exit handlers would wait for processes that never come.
    """
    if hosts.job_arguments(os.environ) is None:
        yield
        return
    # Before `start`: the runtime may abort while the processes wait for each other there.
    hosts.set_c_handler(signal.SIGABRT, ctypes.cast(_aborted, ctypes.c_void_p).value)
    hosts.start()
    _connected.set()
    done = threading.Event()
    # A daemon, so that it does not keep a process alive whose main thread has ended.
    threading.Thread(target=_watch, args=(done,), daemon=True).start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _fail(error)
    done.set()
    jax.distributed.shutdown()


def is_lost_contact(error: BaseException) -> bool:
    """Return True if an error says only that another process, the real cause, is gone."""
    return not isinstance(error, UserError) and bool(LOST_CONTACT.search(str(error)))


def _fail(error: BaseException) -> None:
    """Print the cause of the failure, report it to the other processes, and end this process."""
    with _ending:
        failure = _describe(error)
        status = failure.status
        if not failure.lost:
            # A user's mistake is told by its one line; a traceback is for errors of the program.
            _print(failure.text if status == 2 else _traceback(error))
        # Before `_cause_elsewhere`, which waits for the reports of all.
        _report(failure)
        if failure.lost:
            elsewhere = _cause_elsewhere(failure.text)
            if elsewhere is None:
                # Every process answers, so the error only looks like a lost connection.
                _print(_traceback(error))
            else:
                status, text = elsewhere
                _print(text)
        _end(status)


def _describe(error: BaseException) -> Failure:
    """Return the exit status that `bertjax` gives for an exception, and one line that names it."""
    text = one_line(error, limit=None)
    lost = is_lost_contact(error)
    if isinstance(error, UserError):
        return Failure(2, text, lost)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(2, f"{error.filename or 'a file'}: the disk is full", lost)
    if isinstance(error, KeyboardInterrupt):
        return Failure(130, "interrupted", lost)  # 128 + SIGINT, as shells have it
    return Failure(1, f"{type(error).__name__}: {text[:300]}", lost)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _report(failure: Failure) -> None:
    """Tell the other processes that this one has failed."""
    key = f"bertjax/failed/{hosts.process_name()}"
    _ask_store("key_value_set", key, json.dumps(failure._asdict()))


def _reported() -> dict[str, Failure] | None:
    """Return the failures reported so far, by process name; None if process 0 is gone."""
    entries = _ask_store("key_value_dir_get", "bertjax/failed/")
    if entries is None:
        return None
    return {key.rpartition("/")[2]: Failure(**json.loads(text)) for key, text in entries}


def _ask_store(method: str, *arguments: str) -> Any:
    """Call the job's key-value store; return None if process 0, which keeps the store, is gone."""
    try:
        return getattr(hosts.client(), method)(*arguments)
    except Exception:  # which type the runtime raises depends on its version
        return None


def _cause_elsewhere(text: str) -> tuple[int, str] | None:
    """Return exit status and message of this process, which lost contact (`text`) with another.

    The message names the process that failed and the reason, or else the processes that do not
    answer. Returns None if every process answers. Waits up to `REPORT_SECONDS` for their reports.
    """
    count = hosts.process_count()
    deadline = time.monotonic() + REPORT_SECONDS
    while True:
        failures = _reported()
        if failures is None:
            break
        for name, failure in failures.items():
            if not failure.lost:
                return failure.status, f"ends because {name} failed: {failure.text}"
        if len(failures) == count or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    names = [hosts.process_name_of(index) for index in range(count)]
    silent = [name for name in names if failures is not None and name not in failures]
    if failures is None:
        silent = names[:1]  # process 0 keeps the store, so it is the one that is gone
    if not silent:
        return None
    return 1, f"ends because it lost {', '.join(silent)}, killed or its host gone ({text})"


def _watch(done: threading.Event) -> None:
    """End this process if another one has failed; runs in a thread until `done`.

    The main thread cannot do this: it may be in a collective, where it waits forever for the
    process that failed. If that process only lost contact, this one sends a report too, so that the
    only process without a report is the missing one.
    """
    while not done.wait(POLL_SECONDS):
        failures = _reported()
        if failures is None:
            return  # the runtime ends the process, see `_aborted`
        if not failures:
            continue
        first = next(iter(failures.values()))
        with _ending:
            # Asked again under the lock: the main thread may have finished meanwhile.
            if done.is_set():
                return
            _report(first._replace(lost=True))
            cause = _cause_elsewhere(first.text)
            if cause is None:
                cause = 1, f"ends as others do: {first.text}"
            status, text = cause
            _print(text)
            _end(status)


def _print(text: str) -> None:
    """Write to stderr, each line headed by this process's name.

    One call of the system, so that the lines of processes that share a terminal do not mix.
    """
    lines = "".join(f"bertjax: {hosts.process_name()}: {line}\n" for line in text.splitlines())
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, lines.encode())


def _end(status: int) -> None:
    """End this process without exit handlers, which would wait for the other processes.

    Process 0 keeps the store with the reports, so it ends last: when all have reported, or after
    `REPORT_SECONDS`.
    """
    deadline = time.monotonic() + REPORT_SECONDS
    count = hosts.process_count()
    while hosts.is_first() and time.monotonic() < deadline and len(_reported() or {}) < count:
        time.sleep(0.1)
    # The next start may be on another host, where it would be refused until they expire. In a
    # thread, because a disk that does not answer must not hold this up.
    releasing = threading.Thread(target=release_held, daemon=True)
    releasing.start()
    releasing.join(RELEASE_SECONDS)
    os._exit(status)


# A global: the object must live as long as C may call it (docs.python.org, ctypes).
@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """Handle SIGABRT: print why this process ends, and end it with status 1.

    JAX's runtime calls abort() where the job is broken, after lines of its own.
    """
    # The main thread may know the cause and be about to print it, so it gets time to do so. The
    # wait has a limit, because this thread may hold the lock itself. The limit is longer than
    # `_cause_elsewhere` and `_end` wait together.
    _ending.acquire(timeout=3 * REPORT_SECONDS)
    if _connected.is_set():
        _print(
            "ends because it lost another process, killed or its host gone (see JAX's lines above)"
        )
    else:
        seconds = os.environ.get("BERTJAX_START_SECONDS") or hosts.START_SECONDS
        address = hosts.coordinator_address()
        _print(f"ends because the processes did not all meet at {address} within {seconds} s")
    os._exit(1)
