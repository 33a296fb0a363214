"""Where a file or data set may be cut into stretches, between documents, by its format."""

import re
from collections.abc import Callable
from typing import IO

from etils import epath

from bertjax.data.corpus import formats
from bertjax.data.corpus.formats import NEWLINE, Stretch, one_line, tfds_builder
from bertjax.errors import UserError
from bertjax.storage import opened

_EMPTY_LINE = re.compile(rb"\n[ \t\r]*\n")


def _row_groups(name: str, size: int, step: int) -> list[Stretch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with epath.Path(name).open("rb") as raw:
            found = pq.ParquetFile(raw).metadata
            sizes = [found.row_group(i).total_byte_size for i in range(found.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as Parquet ({one_line(error)})") from error
    bounds, held = [(0, 0)], 0
    for group, bytes_of_text in enumerate(sizes):
        if held and held + bytes_of_text > step:
            bounds.append((group, 0))
            held = 0
        held += bytes_of_text
        bounds[-1] = (bounds[-1][0], held)
    return bounds


def _line_ends(name: str, size: int, step: int, blank: bool = False) -> list[Stretch]:
    starts, at = [0], step
    with opened(name) as file:
        while at < size:
            at = _next_start(file, at, size, blank)
            if at < size:
                starts.append(at)
            at += step
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], size], strict=True)]


def _next_start(file: IO[bytes], at: int, size: int, blank: bool) -> int:
    """The first byte from `at` on where a line begins; with `blank`, after an empty line if one is
    near.
    """
    file.seek(at)
    line_start, data = size, b""
    while block := file.read(formats.BLOCK):
        data = data[-1:] + block
        if blank and (empty := _EMPTY_LINE.search(data)):
            return at + len(block) - len(data) + empty.end()
        if line_start == size and NEWLINE in block:
            line_start = at + block.index(NEWLINE) + 1
        at += len(block)
        if line_start < size and (not blank or at - line_start > formats.LONGEST):
            return line_start
    return size


def _examples(name: str, size: int, step: int) -> list[Stretch]:
    count = sum(split.num_examples for split in tfds_builder(name).info.splits.values())
    parts = max(1, min(count, size // step))
    return [(count * i // parts, size // parts) for i in range(parts)]


BOUNDARIES: dict[str, Callable[[str, int, int], list[Stretch]]] = {
    "bert": lambda name, size, step: _line_ends(name, size, step, blank=True),
    "file": _line_ends,
    "line": _line_ends,
    "jsonl": _line_ends,
    "parquet": _row_groups,
    "tfds": _examples,
}
"""By `Source.format`, for the formats that can be read from the middle: `(name, size, step)` gives
where stretches of about `step` bytes begin, between documents, and the bytes in each.
"""
