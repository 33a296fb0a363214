"""Work units: parts of similar size that a corpus is divided into, and the reader of their texts.

The division follows from the files alone, not from the number of workers. The prepared output does
not depend on the division either, with one exception: documents longer than
`long_texts.MAX_DOCUMENT_CHARACTERS` are divided where their work unit ends.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bertjax import storage
from bertjax.config import DataConfig
from bertjax.data.corpus.boundaries import BOUNDARIES, Boundary
from bertjax.data.corpus.cleaning import clean, is_blank
from bertjax.data.corpus.formats.extent import WHOLE, Extent
from bertjax.data.corpus.formats.readers import ARCHIVE_READERS, READERS
from bertjax.data.corpus.formats.source_file import SourceFile, file_at
from bertjax.data.corpus.sentences import make_splitter
from bertjax.data.corpus.sources import Source
from bertjax.data.corpus.stretches import cut
from bertjax.errors import check

# After a kill, a whole unit is done again. So units stay small, even for a huge corpus.
MIN_UNIT_BYTES, MAX_UNIT_BYTES = 2 << 20, 32 << 20
# The number of units to aim for, as far as the sizes above allow. It is so large that no core waits
# long for the last unit.
TARGET_UNITS = 64
ASSUMED_BYTES = 4 << 20  # for sources whose size is not known
TEXT_BYTES_PER_COMPRESSED_BYTE = 4  # to about a quarter


NULL_DOCUMENTS = "null_documents"
"""Name of the count of entries of JSON lines and Parquet whose text is null; they are left out."""


@dataclass(frozen=True)
class SourcePart:
    """A contiguous part of a source, between two documents."""

    source: Source
    begin: int = 0
    """First byte (of Parquet: row group; of TFDS: example; of an archive: member)."""
    end: int = -1
    """Byte (row group, example, member) after the last; -1: to the end."""

    @property
    def extent(self) -> Extent:
        """The bounds that a reader of `readers.READERS` takes."""
        return Extent(self.begin, self.end)


@dataclass(frozen=True)
class WorkUnit:
    """Parts of one or more sources, which a single worker tokenizes in one job."""

    parts: tuple[SourcePart, ...]
    size: int
    """Estimated bytes of text."""

    @property
    def name(self) -> str:
        """The name of the unit's folder: 16 hexadecimal digits that follow from its parts."""
        # From the parts, so that a preparation started again finds the folders of its units.
        lines = [f"{p.source.name} {p.source.format} {p.begin} {p.end}" for p in self.parts]
        # With the bytes of a file's name that is not UTF-8.
        parts = "\n".join(lines).encode(errors="surrogateescape")
        return hashlib.sha256(parts).hexdigest()[:16]


def make_work_units(sources: Sequence[Source], unit_bytes: int = 0) -> list[WorkUnit]:
    """Divide the sources into work units, in order.

    Large files are divided between documents, small ones grouped. A unit has about `unit_bytes`
    of text; 0: a size that suits the corpus.
    """
    unit_bytes = unit_bytes or _default_unit_bytes(sources)
    work_units: list[WorkUnit] = []
    pending: list[SourcePart] = []
    pending_bytes = 0
    for source in sources:
        for part, part_bytes in _parts(source, unit_bytes):
            if pending and pending_bytes + part_bytes > unit_bytes:
                work_units.append(WorkUnit(tuple(pending), pending_bytes))
                pending, pending_bytes = [], 0
            pending.append(part)
            pending_bytes += part_bytes
    if pending:
        work_units.append(WorkUnit(tuple(pending), pending_bytes))
    return work_units


def _default_unit_bytes(sources: Sequence[Source]) -> int:
    corpus_bytes = sum(source.size for source in sources)
    wanted_bytes = corpus_bytes // TARGET_UNITS
    return min(max(wanted_bytes, MIN_UNIT_BYTES), MAX_UNIT_BYTES)


def _parts(source: Source, unit_bytes: int) -> Iterator[tuple[SourcePart, int]]:
    """The parts of a source, each with its estimated bytes of text."""
    is_stream = storage.is_compressed(source.name)
    text_bytes = source.size
    if is_stream or source.format == "zip":
        text_bytes *= TEXT_BYTES_PER_COMPRESSED_BYTE
    if is_stream:
        # A compressed file can be read from its beginning only.
        yield SourcePart(source), text_bytes
    elif source.format in BOUNDARIES and text_bytes > unit_bytes:
        boundaries = BOUNDARIES[source.format](source.name, source.size, unit_bytes)
        source_end = Boundary(begin=-1, size=0)  # -1: the last part goes to the end
        for boundary, following in pairwise([*boundaries, source_end]):
            yield SourcePart(source, boundary.begin, following.begin), boundary.size
    else:
        yield SourcePart(source), text_bytes or ASSUMED_BYTES


def read_documents(
    work_unit: WorkUnit, config: DataConfig, counts: Counter[str]
) -> Iterator[list[str]]:
    """The documents of a work unit as lists of sentences, empty documents left out.

    Long ones are cut as `config.split_documents` says.

    `counts`, the memory and the errors raised are those of `read_texts`.
    """
    for text, split in read_texts(work_unit, config, counts):
        yield from cut(split(text), config.split_documents)


def read_texts(
    work_unit: WorkUnit, config: DataConfig, counts: Counter[str]
) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """The cleaned texts of a work unit, each with the function that splits it into sentences.

    `counts` gets those of `cleaning.COUNTED`, `sentences.COUNTED` and `NULL_DOCUMENTS`.
    `long_texts.MAX_DOCUMENT_CHARACTERS` bounds the memory; for JSON lines and Parquet, the longest
    line or value does.
    Raises `UserError` naming the file, and the line where there is one, for a file that is empty,
    not UTF-8 or damaged, has a broken JSON line, or lacks the field `config.text_field`.
    """
    for part in work_unit.parts:
        is_whole = part == SourcePart(part.source)
        has_text = False
        for file, format, extent in _files(part, config):
            split = make_splitter(config, format, counts)
            for text in READERS[format](file, config, extent, counts):
                if text is None:
                    counts[NULL_DOCUMENTS] += 1
                elif not is_blank(text):
                    has_text = True
                    # Not split yet: the sample for a vocabulary leaves most texts out, and
                    # splitting is slow.
                    yield clean(text, config, counts), split
        # A part in the middle may hold nothing but white space; a whole file must not.
        check(
            has_text or not is_whole,
            where=part.source.name,
            found="no text",
            expected="one document or more",
        )


def formats_of(work_units: Sequence[WorkUnit], config: DataConfig) -> set[str]:
    """Return the formats of the files, with those in archives: keys of `readers.READERS`."""
    parts = [part for work_unit in work_units for part in work_unit.parts]
    return {format for part in parts for _, format, _ in _files(part, config)}


def _files(part: SourcePart, config: DataConfig) -> Iterator[tuple[SourceFile, str, Extent]]:
    """The files of a part of a source, with their formats and what to read of each."""
    source = part.source
    if source.format in ARCHIVE_READERS:
        for member in ARCHIVE_READERS[source.format](source.name, config, part.extent):
            yield member.file, member.format, WHOLE
    else:
        yield file_at(source.name), source.format, part.extent
