"""Checkpoints that are not as they were saved: how they are named, and how a run goes back."""

import logging
from collections.abc import Callable
from typing import Literal

from etils import epath

from bertjax.errors import MismatchError, disk_errors
from bertjax.parallel import hosts
from bertjax.training.checkpoint_files import steps_in

log = logging.getLogger("bertjax")

DAMAGED = "damaged"
"""End of the name that the folder of a damaged checkpoint gets."""


class DamagedCheckpointError(MismatchError):
    """A checkpoint that is not as it was saved, or not whole.

    The message names the checkpoint before it, which may be given in its place.
    """

    def __init__(self, folder: epath.Path, found: str):
        self.folder, self.found = folder, found
        before = step_before(folder)
        other = f"the one before it is {folder.parent / str(before)}"
        super().__init__(
            f"{folder}: found {found}, expected a whole checkpoint, as it was saved"
            f" ({'there is none before it' if before is None else other})"
        )


def step_before(folder: epath.Path) -> int | None:
    """Return the step of the checkpoint before this one, or None."""
    if not folder.name.isdigit():  # a copy under another name
        return None
    steps = steps_in(folder.parent)
    return max((step for step in steps if step < int(folder.name)), default=None)


def same_everywhere(folder: epath.Path, read: Callable[[], object]) -> None:
    """Run `read` on the first process; raise its `DamagedCheckpointError` on every process."""
    found = ""
    if hosts.is_first():
        try:
            read()
        except DamagedCheckpointError as error:
            folder, found = error.folder, error.found
    text = hosts.from_first(f"{folder.name}\n{found}")
    step, _, found = text.partition("\n")
    if found:
        raise DamagedCheckpointError(folder.parent / step, found)


def go_back(error: DamagedCheckpointError, choice: Literal["previous", "refuse"]) -> None:
    """Set a damaged checkpoint aside, so that a run goes on from the one before it.

    Raises `error` where the run is to refuse, or has no other checkpoint: it would start anew.
    All processes call this.
    """
    before = step_before(error.folder)
    if choice == "refuse" or before is None:
        raise error
    aside = ""
    if hosts.is_first():
        aside = _set_aside(error.folder).name
        log.warning(
            "%s: found %s; the run goes on from step %d, and the damaged checkpoint is kept as %s",
            error.folder,
            error.found,
            before,
            aside,
        )
    hosts.from_first(aside)  # the others wait: until then they would find the damaged one


def _set_aside(folder: epath.Path) -> epath.Path:
    """Rename the folder of a checkpoint, and return its new path."""
    number = 1
    aside = folder.with_name(f"{folder.name}.{DAMAGED}")
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.{DAMAGED}-{number}")
    with disk_errors(folder):
        return folder.rename(aside)
