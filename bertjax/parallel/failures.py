"""A run of several processes fails as one: each says why, with its index, and none is left waiting.

What ends a process, and within what time the others end:

- an exception on one of them: all end within seconds, with that one's exit status (2 for a user's mistake);
- a kill, a crash, a lost host: `BERTJAX_HEARTBEAT_SECONDS` and a few more, 60 s by default, with status 1.
  At once where the network tells, as it does to CPU collectives.
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
from typing import Any

import jax

from bertjax.errors import UserError
from bertjax.parallel import hosts

LOOK_SECONDS = 1.0  # between two looks at whether another process has failed
GATHER_SECONDS = 5.0  # within which a process that is alive has told of its failure
LOST = re.compile(
    r"Gloo|NCCL|coordination|heartbeat|Socket closed|Connection (closed|reset)|unhealthy", re.I
)

_leaving = threading.Lock()
_met = threading.Event()


@contextmanager
def together() -> Iterator[None]:
    """Meet the job's other processes (`hosts.start`), and end with them: a failure in the block
    ends all.

    In a run of one process this does nothing. In others no exception leaves the block: the process
    ends here, since what would run at a normal exit waits for processes that do not come.
    """
    if hosts.job_arguments(os.environ) is None:
        yield
        return
    hosts.set_c_handler(signal.SIGABRT, ctypes.cast(_aborted, ctypes.c_void_p).value)
    hosts.start()
    _met.set()
    done = threading.Event()
    threading.Thread(target=_watch, args=(done,), daemon=True).start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _fail(error)
    done.set()
    jax.distributed.shutdown()


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error says only that another process is gone: the cause is to be looked for there."""
    return not isinstance(error, UserError) and bool(LOST.search(str(error)))


def _fail(error: BaseException) -> None:
    """Say what failed here or elsewhere, let the others know, and end this process."""
    with _leaving:
        lost = is_lost_contact(error)
        status, text = _told(error)
        if not lost:
            _say(text if status == 2 else "".join(traceback.format_exception(error)))
        _publish(status, text, lost)
        if lost:
            elsewhere = _cause_elsewhere(text)
            if elsewhere is None:  # everybody is here: the error may be of another kind after all
                _say("".join(traceback.format_exception(error)))
            else:
                status, text = elsewhere
                _say(text)
        _end(status)


def _told(error: BaseException) -> tuple[int, str]:
    """The exit status that `bertjax` gives for an exception, and one line that names it."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return 2, text
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return 2, f"{error.filename or 'a file'}: the disk is full"
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    return 1, f"{type(error).__name__}: {text[:300]}"


def _publish(status: int, text: str, lost: bool) -> None:
    told = {"status": status, "text": text, "lost": lost}
    _store("key_value_set", f"bertjax/failed/{hosts.process_name()}", json.dumps(told))


def _failures() -> dict[str, dict[str, Any]] | None:
    """What has failed, by the process's place in words; None where nobody can be asked."""
    entries = _store("key_value_dir_get", "bertjax/failed/")
    return (
        None
        if entries is None
        else {name.rpartition("/")[2]: json.loads(text) for name, text in entries}
    )


def _store(method: str, *arguments: str) -> Any:
    """An answer of the job's key-value store; None where process 0, which keeps it, is gone."""
    try:
        return getattr(hosts.client(), method)(*arguments)
    except Exception:  # the runtime raises several types, over its versions
        return None


def _cause_elsewhere(text: str) -> tuple[int, str] | None:
    """Exit status and line of a process that lost contact: who failed and why, or who fell silent,
    if anyone.
    """
    count = hosts.process_count()
    until = time.monotonic() + GATHER_SECONDS
    while (found := _failures()) is not None:
        for other, told in found.items():
            if not told["lost"]:
                return told["status"], f"ends because {other} failed: {told['text']}"
        if len(found) == count or time.monotonic() > until:
            break
        time.sleep(0.1)
    everybody = [hosts.process_name_of(index) for index in range(count)]
    silent = (
        everybody[:1] if found is None else [other for other in everybody if other not in found]
    )
    if not silent:
        return None
    return 1, f"ends because it lost {', '.join(silent)}, killed or its host gone ({text})"


def _watch(done: threading.Event) -> None:
    """End this process where another one has failed: the main thread may be waiting for it without
    end.

    Where that one only lost contact, this process tells of itself too, so that who is gone shows.
    """
    while not done.wait(LOOK_SECONDS):
        found = _failures()
        if found is None:
            return  # the runtime ends the process, see `_aborted`
        for told in list(found.values())[:1]:
            with _leaving:
                if done.is_set():
                    return
                _publish(told["status"], told["text"], lost=True)
                status, text = _cause_elsewhere(told["text"]) or (
                    1,
                    f"ends as others do: {told['text']}",
                )
                _say(text)
                _end(status)


def _say(text: str) -> None:
    """Write to stderr, each line with this process's index, in one piece."""
    lines = "".join(f"bertjax: {hosts.process_name()}: {line}\n" for line in text.splitlines())
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, lines.encode())


def _end(status: int) -> None:
    """End without what runs at a normal exit. The first process, which keeps what is known, does it
    last.
    """
    until = time.monotonic() + GATHER_SECONDS
    while (
        hosts.is_first()
        and time.monotonic() < until
        and len(_failures() or {}) < hosts.process_count()
    ):
        time.sleep(0.1)
    os._exit(status)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """JAX's runtime ends a process whose job is broken by abort(), after lines of its own: add
    ours, end with 1.
    """
    _leaving.acquire(timeout=3 * GATHER_SECONDS)  # the main thread may know more, and be saying it
    if _met.is_set():
        _say(
            "ends because it lost another process, killed or its host gone (see JAX's lines above)"
        )
    else:
        seconds = os.environ.get("BERTJAX_START_SECONDS") or hosts.START_SECONDS
        _say(
            f"ends because the processes did not all meet at {hosts.coordinator_address()} within {seconds} s"
        )
    os._exit(1)
