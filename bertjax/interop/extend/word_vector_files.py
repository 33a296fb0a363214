"""Files of word vectors: GloVe's text, word2vec's text (fastText's `.vec` too) and binary.

A file in any of these formats may also be compressed, as .gz. It is read once, a block at a time.
Files are untrusted: the sizes that a file claims are compared with what it has, and no memory is
reserved for these sizes.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import IO, Literal, cast

from etils import epath

from bertjax.errors import UserError, check, mismatch
from bertjax.given_files import check_is_no_pipe
from bertjax.progress import Progress

VectorFormat = Literal["auto", "glove", "word2vec", "word2vec-binary"]

HEADER = re.compile(rb"(\d{1,15}) (\d{1,9})\s*")  # a count and a width, of limited length
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # bytes that no text has
# The first bytes of a gzip file (RFC 1952, section 2.3.1). The file's name is not considered.
GZIP = b"\x1f\x8b"
MAX_WIDTH = 1 << 14  # numbers in a vector
MAX_WORD_BYTES = 1 << 12
MAX_LINE_BYTES = MAX_WORD_BYTES + 64 * MAX_WIDTH  # 64 bytes are plenty for a number
BLOCK_BYTES = 1 << 20  # more than the longest binary entry has
REPORT_EVERY = 50_000  # entries


def text_entries(
    path: epath.Path, file: IO[bytes], kind: str, width: int, progress: Progress
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield (where, word, its numbers as text) of each entry.

    A word may have spaces in it, as in glove.840B, so the numbers are the last fields of a line.
    """
    line, number = _line(path, file, 1), 1
    count = 0  # unknown for GloVe's files
    if kind == "word2vec":
        count, file_width = _header(path, line)
        _check_width(path, file_width, width)
        line, number = _line(path, file, 2), 2
    else:
        _check_width(path, _count_trailing_numbers(line), width)
    entries = 0
    while line:
        where = f"{path}, line {number}"
        # word2vec.c writes a space after each number, the last one too.
        line = line.rstrip(b" \r\n")
        if line:
            spaces = line.count(b" ")
            check(
                spaces >= width,
                where=where,
                found=f"a word and {spaces} numbers",
                expected=f"{width} numbers",
            )
            # Nearly every word is without a space. Then the line's first space ends the word, and
            # it is found without a copy of the line.
            at = line.index(b" ") if spaces == width else len(line.rsplit(b" ", width)[0])
            yield where, line[:at], line[at + 1 :]
            entries += 1
            if entries % REPORT_EVERY == 0:
                progress("reading word vectors", entries, count)
        number += 1
        line = _line(path, file, number)
    if kind == "word2vec":
        check(
            # Only the count shows that a file was cut off between two lines.
            entries == count,
            where=str(path),
            found=f"{entries:,} entries",
            expected=f"{count:,}, as the first line says",
        )


def binary_entries(
    path: epath.Path, file: IO[bytes], kind: str, width: int, progress: Progress
) -> Iterator[tuple[str, bytes, memoryview]]:
    """Yield (where, word, its numbers as bytes) of each entry.

    Some writers end an entry with a newline, some do not.
    """
    count, file_width = _header(path, _line(path, file, 1))
    _check_width(path, file_width, width)
    buffer, at = b"", 0
    for number in range(1, count + 1):
        # The buffer always has enough bytes for the longest entry, so that no entry is divided.
        if len(buffer) - at < MAX_WORD_BYTES + 4 * width:
            buffer, at = buffer[at:] + file.read(BLOCK_BYTES), 0
        where = f"{path}, entry {number:,}"
        space = buffer.find(b" ", at, at + MAX_WORD_BYTES)
        if space < 0:
            check(
                buffer[at:].strip(b"\n"),
                where=where,
                found="the end",
                expected=f"{count:,} entries, as the first line says",
            )
            raise mismatch(
                where=where,
                found=f"no space in {MAX_WORD_BYTES:,} bytes",
                expected="a word, a space and its numbers",
            )
        end = space + 1 + 4 * width
        check(
            end <= len(buffer),
            where=where,
            found=f"{len(buffer) - space - 1} bytes after the word",
            expected=f"{4 * width}",
        )
        yield where, buffer[at:space].lstrip(b"\n"), memoryview(buffer)[space + 1 : end]
        at = end
        if number % REPORT_EVERY == 0:
            progress("reading word vectors", number, count)
    rest = buffer[at : at + BLOCK_BYTES].strip(b"\n") or file.read(1)
    check(
        # If bytes are left over, the count or the width is wrong, and the vectors may be wrong too.
        not rest,
        where=str(path),
        found=f"bytes after entry {count:,}",
        expected="the end, as the first line says",
    )


def detect_format(path: epath.Path) -> VectorFormat:
    """Tell the format from the first line and, if that is a header, from the entry after it."""
    with opened(path) as file:
        first = _line(path, file, 1)
        sample = file.read(MAX_WORD_BYTES)
    if not HEADER.fullmatch(first):
        check(
            _count_trailing_numbers(first) > 0,
            where=f"{path}, line 1",
            found=repr(first[:40]),
            expected=(
                "a word and its numbers, or a count and a width (of a file that is unpacked, or "
                ".gz)"
            ),
        )
        return "glove"
    fields = sample.split(b"\n")[0].split(b" ")[1:]
    # Bytes of binary numbers may look like text, but hardly like a number that is written as text.
    is_text = not CONTROL.search(sample) and any(map(_is_number, fields))
    return "word2vec" if is_text else "word2vec-binary"


def _count_trailing_numbers(line: bytes) -> int:
    """Count the numbers that a line ends with; its first field is the word and does not count."""
    fields = line.rstrip(b" \r\n").split(b" ")[1:]
    return sum(1 for _ in takewhile(_is_number, reversed(fields)))


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _header(path: epath.Path, line: bytes) -> tuple[int, int]:
    """Return the count of words and the width that word2vec's first line gives."""
    match = HEADER.fullmatch(line)
    if match is None:
        raise mismatch(
            where=f"{path}, line 1",
            found=repr(line[:40]),
            expected="a count of words and a width",
        )
    count, width = int(match[1]), int(match[2])
    check(
        count > 0,
        where=f"{path}, line 1",
        found="a count of 0 words",
        expected="one or more",
    )
    return count, width


def _check_width(path: epath.Path, file_width: int, width: int) -> None:
    check(0 < width <= MAX_WIDTH, where="width", found=width, expected=f"1 to {MAX_WIDTH:,}")
    check(
        file_width == width,
        where=f"{path}, line 1",
        found=f"vectors of width {file_width}",
        expected=f"{width}, the width of the model's embeddings",
    )


def _line(path: epath.Path, file: IO[bytes], number: int) -> bytes:
    """Return the next line; raise `UserError`, naming its `number`, if it is too long.

    Nothing is read beyond the limit, so a file without line ends cannot fill the memory.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    check(
        len(line) <= MAX_LINE_BYTES,
        where=f"{path}, line {number}",
        found="no end of the line",
        expected=f"{MAX_LINE_BYTES:,} bytes at most",
    )
    return line


@contextmanager
def opened(path: epath.Path) -> Iterator[IO[bytes]]:
    """Open a file, to read its bytes; if it is a gzip file, they are decompressed.

    Raises `UserError`, naming the file, if it cannot be read.
    """
    check_is_no_pipe(path)
    try:
        with path.open("rb") as raw:
            # The file that a store (gs://, s3://) gives cannot limit the length of a line it reads.
            file = io.BufferedReader(raw, BLOCK_BYTES)
            if file.peek(2)[:2] == GZIP:
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as word vectors ({reason})") from error
