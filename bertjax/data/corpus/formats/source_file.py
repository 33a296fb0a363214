"""File that a reader reads: one on a disk or in a store, or a member of an archive."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import IO

from bertjax.storage import is_compressed, opened


@dataclass(frozen=True)
class SourceFile:
    """A file by its name, and how it is opened."""

    name: str
    """For messages: the path; of a member the path of the archive, a comma, its name there."""
    opened: Callable[[], AbstractContextManager[IO[bytes]]]
    """Function that opens the file to read its bytes, decompressed."""
    is_stream: bool = False
    """True if it can be read from its beginning only."""


def file_at(name: str) -> SourceFile:
    """Return the file at a path, or the data set of another name, which opens itself."""
    return SourceFile(name, partial(opened, name), is_compressed(name))
