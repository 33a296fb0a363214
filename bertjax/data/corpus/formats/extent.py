"""Part of a source that one reader reads."""

from typing import NamedTuple


class Extent(NamedTuple):
    """The part of a source to read, in bytes (in Parquet: row groups; in TFDS: examples)."""

    begin: int = 0
    end: int = -1
    """Position after the last byte of the part; -1 means the end of the source."""


WHOLE = Extent()
