"""A corpus cut into pieces of work of like size, whatever the sizes of its files.

How it is cut follows from the files alone, not from the number of workers. The output does not
depend on it either, but for documents longer than `formats.LONGEST`, which are cut at their piece's
end.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bertjax import storage
from bertjax.config import DataConfig
from bertjax.data.corpus import formats
from bertjax.data.corpus.boundaries import BOUNDARIES
from bertjax.data.corpus.cleaning import clean
from bertjax.data.corpus.sentences import split_sentences
from bertjax.data.corpus.sources import Source
from bertjax.errors import check

SMALLEST, LARGEST = 2 << 20, 32 << 20
PIECES = 64  # aimed at, between those sizes: enough that no core waits long for the last one
UNKNOWN_SIZE = 4 << 20  # taken for sources that are no files
COMPRESSED = 4  # text bytes a compressed byte, about


@dataclass(frozen=True)
class SourcePart:
    """A stretch of a source."""

    source: Source
    begin: int = 0
    """First byte (of Parquet: row group; of TFDS: example)."""
    end: int = -1
    """Byte (row group, example) after the last; -1: to the end."""


@dataclass(frozen=True)
class WorkUnit:
    """What one task tokenises: stretches of files, of like size in all."""

    parts: tuple[SourcePart, ...]
    size: int
    """Estimated bytes of text."""

    @property
    def name(self) -> str:
        """A name for the piece's folder, from what it is."""
        said = "\n".join(f"{p.source.name} {p.source.format} {p.begin} {p.end}" for p in self.parts)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def make_work_units(sources: Sequence[Source], piece_bytes: int = 0) -> list[WorkUnit]:
    """The sources as pieces, in order: large files cut at the ends of documents, small ones
    together.

    A piece is of about `piece_bytes`; 0: as suits the size of the corpus.
    """
    piece_bytes = piece_bytes or min(
        LARGEST, max(SMALLEST, sum(source.size for source in sources) // PIECES)
    )
    work_units: list[WorkUnit] = []
    pending: list[SourcePart] = []
    size = 0
    for part, length in (sized for source in sources for sized in _parts(source, piece_bytes)):
        if pending and size + length > piece_bytes:
            work_units.append(WorkUnit(tuple(pending), size))
            pending, size = [], 0
        pending.append(part)
        size += length
    return [*work_units, WorkUnit(tuple(pending), size)] if pending else work_units


def _parts(source: Source, piece_bytes: int) -> Iterator[tuple[SourcePart, int]]:
    """The source's stretches, each with its estimated bytes of text."""
    if storage.is_compressed(source.name):
        yield SourcePart(source), source.size * COMPRESSED
    elif source.format in BOUNDARIES and source.size > piece_bytes:
        bounds = BOUNDARIES[source.format](source.name, source.size, piece_bytes)
        for (begin, size), (end, _) in zip(bounds, [*bounds[1:], (-1, 0)], strict=True):
            yield SourcePart(source, begin, end), size
    else:
        yield SourcePart(source), source.size or UNKNOWN_SIZE


def read_documents(
    work_unit: WorkUnit, config: DataConfig, counts: Counter[str]
) -> Iterator[list[str]]:
    """The documents of a piece as sentences; empty ones are left out. As `read_texts` else."""
    for text, split in read_texts(work_unit, config, counts):
        document = split(text)
        if document:
            yield document


def read_texts(
    work_unit: WorkUnit, config: DataConfig, counts: Counter[str]
) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """The texts of a piece, cleaned, each with what splits it into sentences. Adds to `counts`.

    Memory is bounded by `formats.LONGEST`; of JSON lines and Parquet, by the longest line or
    value. Raises `UserError` naming the file, and the line where there is one, for what cannot be
    read: a file that is empty, not UTF-8, damaged, or with a broken JSON line or without the
    field `config.text_field`.
    """
    for part in work_unit.parts:
        source = part.source
        split = _by_line if source.format == "bert" else split_sentences
        some = False
        for text in formats.READERS[source.format](source.name, config, (part.begin, part.end)):
            if text and not text.isspace():
                some = True
                yield clean(text, config, counts), split
        whole = part.begin == 0 and part.end == -1
        check(
            some or not whole, where=source.name, found="no text", expected="one document or more"
        )


def _by_line(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]
