"""Marks of a run: steps at which a checkpoint is saved that is never removed."""

from collections.abc import Sequence
from typing import NamedTuple

from bertjax.config.phases.resolution import Phase, Run, phases_of, tokens_at


class Marks(NamedTuple):
    """The marks that `train.keep_every_steps`, `keep_every_tokens` and `keep_steps` name.

    An update of several batches may jump over a mark. Then the checkpoint after it is kept.
    """

    every_steps: int
    """0: no such marks."""
    every_tokens: int
    steps: Sequence[int]
    phases: Sequence[Phase[Run]]

    def passed(self, before: int, step: int) -> bool:
        """Return whether a mark lies after step `before` and not after `step`.

        `before` is -1 for the beginning of the run.
        """
        first = max(before, 0)
        if self.every_steps and step // self.every_steps > first // self.every_steps:
            return True
        if self.every_tokens:
            blocks = [tokens_at(self.phases, each) // self.every_tokens for each in (first, step)]
            if blocks[1] > blocks[0]:
                return True
        # Step 0 has a checkpoint of its own or none: a later one does not stand for it.
        return any(before < mark <= step and (mark > 0 or step == 0) for mark in self.steps)

    def kept(self, steps: Sequence[int]) -> list[bool]:
        """Return for each of the steps, ascending, that have a checkpoint whether it is kept."""
        earlier = [-1, *steps]
        return [self.passed(before, step) for before, step in zip(earlier, steps, strict=False)]


def marks_of(config: Run) -> Marks:
    """Return the marks of a run."""
    train = config.train
    return Marks(
        train.keep_every_steps, train.keep_every_tokens, train.keep_steps, phases_of(config)
    )
