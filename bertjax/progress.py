"""How long work tells of itself without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a total of 0 means that it is not known yet."""


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that says nothing."""
