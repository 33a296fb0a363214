"""The holder of a lock: which process on which host, and whether it is dead."""

import errno
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_STATE, _START = 0, 19
"""Places of the state and the start time in `/proc/PID/stat`, after the process's name."""
_DEAD = ("Z", "X", "x")
"""States of a process that has ended: its parent has not asked for its exit status yet."""


@dataclass(frozen=True)
class Host:
    """A system in which a process number names one process."""

    name: str
    system: str
    """The kernel since its last boot, and the namespace of process numbers.

    Machines may have the same name, and containers share a kernel.
    """


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, as the lock's file names it."""

    token: str
    """Different for each lock that was ever taken."""
    verb: str
    host: str
    system: str
    pid: int
    started: int
    """Start time of the process in the kernel's own count; 0 where it is not known."""
    since: str
    folder: str = ""
    """Device and number of the folder in which the lock is; empty where there are none.

    A copy of the folder takes the lock's file along, and has another number.
    """

    def to_bytes(self) -> bytes:
        """Return the content of the lock's file."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def is_near(self, other: "Holder") -> bool:
        """Return True if the other can see whether this process lives."""
        return (self.host, self.system) == (other.host, other.system)

    def describe(self) -> str:
        """Return what a refusal says of the holder."""
        return f"bertjax {self.verb} (process {self.pid} on {self.host}, since {self.since})"


def this_host() -> Host:
    """Return the host of this process."""
    return Host(socket.gethostname(), f"{_boot()} {_namespace()}")


def this_process(verb: str, host: Host) -> Holder:
    """Return this process as a new holder."""
    return Holder(
        token=uuid.uuid4().hex,
        verb=verb,
        host=host.name,
        system=host.system,
        pid=os.getpid(),
        started=_stat(os.getpid())[1],
        since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    )


def parsed(content: bytes) -> Holder | None:
    """Return the holder that a lock's file names; None where it is empty or something else."""
    try:
        values = json.loads(content)
        holder = Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    known = all(isinstance(getattr(holder, field.name), field.type) for field in fields(Holder))  # type: ignore[arg-type]
    return holder if known else None


def has_ended(holder: Holder) -> bool:
    """Return True if the holder, a process of this host, is dead."""
    try:
        os.kill(holder.pid, 0)
    except OSError as error:
        # Any other error is a refusal to send a signal to a process that lives.
        return error.errno == errno.ESRCH
    except OverflowError:
        return True
    state, started = _stat(holder.pid)
    return state in _DEAD or (holder.started != 0 and started not in (0, holder.started))


def _stat(pid: int) -> tuple[str, int]:
    """Return the state and the start time of a process; "" and 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    # The name, in brackets, may itself hold spaces and brackets.
    words = text.rpartition(")")[2].split()
    return words[_STATE], int(words[_START])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
