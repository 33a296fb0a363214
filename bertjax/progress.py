"""Progress callbacks: long work reports what is done, without knowing who shows it."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a total of 0 means that it is not known yet."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress callback that shows nothing."""
