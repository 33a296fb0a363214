"""Checkpoints that are not as they were saved: how they are named, and how a run goes back."""

import errno
import logging
import re
import time
from collections.abc import Callable

from etils import epath

from bertjax.errors import MismatchError, UserError, check, disk_errors
from bertjax.parallel import hosts
from bertjax.parallel.failures import is_lost_contact
from bertjax.training.checkpoint_files import steps_in

log = logging.getLogger("bertjax")

DAMAGED = "damaged"
"""End of the name that the folder of a damaged checkpoint gets."""

# Texts of TensorStore's errors of the machine, the network or the user's rights.
PASSING = re.compile(
    r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|PERMISSION_DENIED|RESOURCE_EXHAUSTED"
    r"|UNAUTHENTICATED|UNAVAILABLE): "
)
# Of the errors of a file system those by which a file is missing or not to be read.
CONTENTS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EBADMSG)
# Time after which a host must see that another host has renamed a folder (NFS caches names).
VISIBLE_SECONDS = 60.0


class DamagedCheckpointError(MismatchError):
    """A checkpoint that is not as it was saved, or not whole.

    The message names the checkpoint before it, which may be given in its place, and a newer one: a
    run that trains removes old checkpoints, also while they are read.
    """

    def __init__(self, folder: epath.Path, found: str):
        self.folder, self.found = folder, found
        before, newer = step_before(folder), _newer_step(folder)
        others = "there is none before it"
        if before is not None:
            others = f"the one before it is {folder.parent / str(before)}"
        if newer is not None:
            others += f"; the run has {newer} too, and may have removed this one meanwhile"
        super().__init__(
            f"{folder}: found {found}, expected a whole checkpoint, as it was saved ({others})"
        )


def is_passing(error: BaseException) -> bool:
    """Return True for an error after which a checkpoint may be whole: it tells of no contents."""
    if isinstance(error, OSError) and error.errno not in (None, *CONTENTS):
        return True
    of_machine = isinstance(error, (UserError, ConnectionError, TimeoutError, MemoryError))
    return of_machine or bool(PASSING.match(str(error))) or is_lost_contact(error)


def step_before(folder: epath.Path) -> int | None:
    """Return the step of the checkpoint before this one, or None."""
    if not folder.name.isdigit():  # a copy under another name
        return None
    steps = steps_in(folder.parent)
    return max((step for step in steps if step < int(folder.name)), default=None)


def _newer_step(folder: epath.Path) -> int | None:
    """Return the step of the newest checkpoint if it is newer than this one, or None."""
    if not folder.name.isdigit():
        return None
    newest = max(steps_in(folder.parent), default=0)
    return newest if newest > int(folder.name) else None


def same_everywhere(checkpoints: epath.Path, read: Callable[[], object]) -> None:
    """Run `read` on the first process; raise its `DamagedCheckpointError` on every process.

    `checkpoints` is the folder of a run's checkpoints. All processes call this.
    """
    said = ""
    if hosts.is_first():
        try:
            read()
        except DamagedCheckpointError as error:
            said = f"{error.folder.name}\n{error.found}"
    step, _, found = hosts.from_first(said).partition("\n")
    if found:
        raise DamagedCheckpointError(checkpoints / step, found)


def set_aside(error: DamagedCheckpointError, checkpoints: epath.Path, choice: str) -> None:
    """Rename a damaged checkpoint of a run, so that the run goes on from the newest of the others.

    `checkpoints` is the folder of the run's checkpoints, `choice` the field
    `train.damaged_checkpoint`. Raises `error` where the run is to refuse, where it has no other
    checkpoint and would start anew, and where the checkpoint is another run's. All processes call
    this.
    """
    folder = error.folder
    is_own = folder.parent.resolve() == checkpoints.resolve()
    others = [step for step in steps_in(checkpoints) if str(step) != folder.name]
    if choice == "refuse" or not is_own or not others:
        raise error
    if hosts.is_first():
        aside = _renamed(folder)
        log.warning(
            "%s: damaged, found %s; kept as %s, and the run goes on from step %d",
            folder,
            error.found,
            aside.name,
            max(others),
        )
    hosts.from_first("")  # until it is renamed the others would find it
    _wait_until_gone(folder)


def _wait_until_gone(folder: epath.Path) -> None:
    """Wait until this process sees that the folder has another name."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(1)
    check(
        not folder.exists(),
        where=str(folder),
        found="a folder that another process has renamed",
        expected="a file system that shows it to all hosts",
    )


def _renamed(folder: epath.Path) -> epath.Path:
    """Rename the folder of a checkpoint, and return its new path."""
    number = 1
    aside = folder.with_name(f"{folder.name}.{DAMAGED}")
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.{DAMAGED}-{number}")
    with disk_errors(folder):
        return folder.rename(aside)
