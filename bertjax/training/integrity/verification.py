"""Check of all checkpoints of a run."""

from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from bertjax.training import checkpoint
from bertjax.training.integrity.damage import DamagedCheckpointError
from bertjax.training.integrity.record import check_score
from bertjax.training.integrity.restoring import check_arrays


class Verdict(NamedTuple):
    """What a check of a checkpoint has found."""

    folder: epath.Path
    is_whole: bool
    text: str
    """In a few words."""


def verified(run_dir: epath.Path) -> Iterator[Verdict]:
    """Read each checkpoint of a run, from the oldest on, and yield what was found.

    A checkpoint lies in the host's memory while it is compared.
    """
    for step in checkpoint.steps_of(run_dir):
        folder = run_dir / checkpoint.FOLDER / str(step)
        try:
            check_score(folder)
            compared = check_arrays(folder)
        except DamagedCheckpointError as error:
            yield Verdict(folder, False, f"damaged: {error.found}")
            continue
        text = "whole" if compared else "readable; it has no digests to compare with"
        yield Verdict(folder, True, text)
