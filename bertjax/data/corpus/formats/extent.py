"""Part of a source that one reader reads."""

from typing import NamedTuple


class Extent(NamedTuple):
    """The part of a source to read, in bytes.

    In Parquet it is counted in row groups, in TFDS in examples, in archives in members.
    """

    begin: int = 0
    end: int = -1
    """Position after the last byte of the part; -1 means the end of the source."""


WHOLE = Extent()
