"""Check of all checkpoints of a run."""

from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from bertjax.storage import is_local
from bertjax.training.checkpoint_files import steps_in
from bertjax.training.integrity.damage import DamagedCheckpointError
from bertjax.training.integrity.record import check_score
from bertjax.training.integrity.restoring import check_arrays


class Verdict(NamedTuple):
    """What a check of a checkpoint has found."""

    folder: epath.Path
    is_whole: bool
    text: str
    """In a few words."""


def verified(checkpoints: epath.Path) -> Iterator[Verdict]:
    """Read each checkpoint of a run, from the oldest on, and yield what was found.

    `checkpoints` is the folder that they are in. A checkpoint lies in the memory of the host while
    it is compared.
    """
    # Orbax takes absolute paths only.
    checkpoints = checkpoints.resolve() if is_local(checkpoints) else checkpoints
    for step in steps_in(checkpoints):
        folder = checkpoints / str(step)
        try:
            check_score(folder)
            compared = check_arrays(folder)
        except DamagedCheckpointError as error:
            yield Verdict(folder, False, f"damaged: {error.found}")
            continue
        text = "whole" if compared else "readable; it has no digests to compare with"
        yield Verdict(folder, True, text)
