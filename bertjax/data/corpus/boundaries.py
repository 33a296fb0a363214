"""Boundaries between documents at which a file or data set of each format can be divided."""

import re
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from etils import epath

from bertjax.data.corpus.cleaning import UNSEEN
from bertjax.data.corpus.formats import decoding, long_texts
from bertjax.data.corpus.formats.archives import tar_sizes, zip_sizes
from bertjax.data.corpus.formats.decoding import NEWLINE
from bertjax.data.corpus.formats.tfds import tfds_builder
from bertjax.errors import UserError, one_line
from bertjax.storage import opened


def _encoded_class(characters: str) -> bytes:
    """A pattern that matches one of the characters in UTF-8."""
    last_bytes: dict[bytes, bytes] = {}
    for character in characters:
        encoded = character.encode()
        last_bytes[encoded[:-1]] = last_bytes.get(encoded[:-1], b"") + encoded[-1:]
    classes = [start + b"[" + re.escape(ends) + b"]" for start, ends in last_bytes.items()]
    return b"|".join(classes)


# The characters that may stand in a line which the reader calls blank. The line end is not one of
# them, so that a match has a single blank line. Possessive (*+), as nothing else could match.
_EMPTY_LINE = re.compile(b"\n(?:" + _encoded_class(UNSEEN.replace("\n", "")) + b")*+\n")
MAX_CHARACTER_BYTES = 4
"""Bytes of a character in UTF-8, at most (RFC 3629, section 3)."""


class Boundary(NamedTuple):
    """Start and size of one part of a source."""

    begin: int
    """Number of the part's first byte (Parquet: row group; TFDS: example; archive: member)."""
    size: int
    """Size of the part in bytes; an estimate if it is not known exactly."""


def _row_groups(name: str, size: int, step: int) -> list[Boundary]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with epath.Path(name).open("rb") as raw:
            metadata = pq.ParquetFile(raw).metadata
            groups = range(metadata.num_row_groups)
            # `total_byte_size` is the uncompressed size of all columns (parquet.thrift,
            # `RowGroup`).
            group_bytes = [metadata.row_group(i).total_byte_size for i in groups]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as Parquet ({one_line(error)})") from error
    # pyarrow reads row groups by number, and nothing smaller.
    return _grouped(group_bytes, step)


def _zip_members(name: str, size: int, step: int) -> list[Boundary]:
    return _grouped(zip_sizes(name), step)


def _tar_members(name: str, size: int, step: int) -> list[Boundary]:
    return _grouped(tar_sizes(name), step)


def _grouped(sizes: Sequence[int], step: int) -> list[Boundary]:
    """Boundaries that group consecutive items, of these sizes, to parts of about `step` bytes."""
    boundaries: list[Boundary] = []
    begin = part_bytes = 0
    for number, item_bytes in enumerate(sizes):
        if part_bytes and part_bytes + item_bytes > step:
            boundaries.append(Boundary(begin, part_bytes))
            begin, part_bytes = number, 0
        part_bytes += item_bytes
    return [*boundaries, Boundary(begin, part_bytes)]


def _longest_document() -> int:
    """The most bytes that a document can have which the reader does not divide."""
    return MAX_CHARACTER_BYTES * long_texts.MAX_DOCUMENT_CHARACTERS


def _lines(name: str, size: int, step: int) -> list[Boundary]:
    return _line_starts(name, size, step, blank=False)


def _parts_of_document(name: str, size: int, step: int) -> list[Boundary]:
    return _lines(name, size, step) if size > _longest_document() else [Boundary(0, size)]


def _paragraphs(name: str, size: int, step: int) -> list[Boundary]:
    return _line_starts(name, size, step, blank=True)


def _line_starts(name: str, size: int, step: int, blank: bool) -> list[Boundary]:
    boundaries: list[Boundary] = []
    # The file is read near the cuts only, so that a large one is divided at once.
    begin, position = 0, step
    with opened(name) as file:
        while position < size:
            position = _next_start(file, position, size, blank)
            if position < size:
                boundaries.append(Boundary(begin, position - begin))
                begin = position
            position += step
    return [*boundaries, Boundary(begin, size - begin)]


def _next_start(file: IO[bytes], position: int, size: int, blank: bool) -> int:
    """The position of the first line start at or after `position`; `size` if there is none.

    With `blank`, the line must follow an empty line, unless the next
    `long_texts.MAX_DOCUMENT_CHARACTERS` have none.
    """
    file.seek(position)
    line_start, data = size, b""
    while block := file.read(decoding.BLOCK_BYTES):
        # The last byte of the previous block is kept, because an empty line may span two blocks.
        data = data[-1:] + block
        empty_line = _EMPTY_LINE.search(data) if blank else None
        if empty_line:
            return position + len(block) - len(data) + empty_line.end()
        if line_start == size and NEWLINE in block:
            line_start = position + block.index(NEWLINE) + 1
        position += len(block)
        # The reader divides a longer document anyway, so beyond that any line's start will do.
        near = position - line_start <= _longest_document()
        if line_start < size and not (blank and near):
            return line_start
    return size


def _examples(name: str, size: int, step: int) -> list[Boundary]:
    count = sum(split.num_examples for split in tfds_builder(name).info.splits.values())
    parts = max(1, min(count, size // step))
    return [Boundary(count * i // parts, size // parts) for i in range(parts)]


BOUNDARIES: dict[str, Callable[[str, int, int], list[Boundary]]] = {
    "bert": _paragraphs,
    "file": _parts_of_document,
    "line": _lines,
    "jsonl": _lines,
    "parquet": _row_groups,
    "zip": _zip_members,
    "tar": _tar_members,
    "tfds": _examples,
}
"""Functions that divide a source, by `Source.format`.

Each takes `(name, size, step)`: it divides a source of `size` bytes into parts of about `step`
bytes and returns the boundary at the start of each part. Only formats that can be read from the
middle are listed.
"""
