"""Word vectors from files: GloVe's text, word2vec's text (fastText's `.vec` too) and binary, each
also as .gz.

A file is read once, in pieces, and of it only the wanted words are kept, so memory goes with what
is wanted. Files are untrusted: what they say of their own size is compared, never reserved.
"""

import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import IO, Literal

import numpy as np
from etils import epath

from bertjax.errors import UserError, check, mismatch
from bertjax.progress import Progress, silent

Format = Literal["auto", "glove", "word2vec", "word2vec-binary"]

HEADER = re.compile(rb"(\d{1,15}) (\d{1,9})\s*")
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
GZIP = b"\x1f\x8b"
WIDEST = 1 << 14  # numbers of a vector
LONGEST_WORD = 1 << 12  # bytes
LONGEST_LINE = LONGEST_WORD + 64 * WIDEST  # bytes; 64 are plenty for a number
BLOCK = 1 << 20  # bytes; more than a binary entry has
REPORT_EVERY = 50_000  # entries


def read_word_vectors(
    path: epath.PathLike,
    wanted: Collection[str],
    width: int,
    *,
    file_format: Format = "auto",
    lowercase: bool = False,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """The vectors of those of `wanted` that the file has: finite float32 arrays `[width]` by word.

    A word that stands there twice has its first vector. With `lowercase`, a word of the file that
    is not wanted as it stands is taken in lower case, the first of such words (files go by
    frequency) and only where the word itself is missing. `auto` tells the formats by a header and
    by what follows it. Numbers are read, and checked, of wanted words only; of every entry it is
    checked that it is whole.

    Raises `UserError` naming file and line or entry: no such format, another width than `width`, a
    cut file, what is no finite number, an entry longer than can be.
    """
    path = epath.Path(path)
    kind = _format(path) if file_format == "auto" else file_format
    kept = _Kept(wanted, lowercase)
    with _opened(path) as file:
        entries = (_binary_entries if kind == "word2vec-binary" else _text_entries)(
            path, file, kind, width, progress
        )
        for where, word, values in entries:
            kept.offer(where, word, values, width)
    return kept.vectors


class _Kept:
    """The wanted vectors so far; a word as it stands goes before one in lower case."""

    def __init__(self, wanted: Collection[str], lowercase: bool):
        self.wanted, self.lowercase = frozenset(wanted), lowercase
        self.vectors: dict[str, np.ndarray] = {}
        self._exact: set[str] = set()

    def offer(self, where: str, raw: bytes, values: bytes | memoryview, width: int) -> None:
        word = raw.decode(errors="replace")
        if word in self.wanted:
            if word not in self._exact:
                self._exact.add(word)
                self.vectors[word] = _numbers(where, values, width)
        elif self.lowercase and (word := word.lower()) in self.wanted and word not in self.vectors:
            self.vectors[word] = _numbers(where, values, width)


def _numbers(where: str, values: bytes | memoryview, width: int) -> np.ndarray:
    """A vector from its text, or from its bytes in memory."""
    if isinstance(values, memoryview):
        vector = np.frombuffer(values, "<f4").astype(np.float32)
    else:
        try:
            with np.errstate(over="ignore"):
                vector = np.array([float(value) for value in values.split(b" ")], np.float32)
        except ValueError as error:
            raise UserError(f"{where}: found no number ({error}), expected {width}") from error
    finite = np.isfinite(vector)
    check(
        finite.all(),
        where=where,
        found=f"{vector[~finite][:1]} as a float32",
        expected="finite numbers",
    )
    return vector


def _text_entries(
    path: epath.Path, file: IO[bytes], kind: str, width: int, progress: Progress
) -> Iterator[tuple[str, bytes, bytes]]:
    """(where, word, its numbers as text). A word may have spaces in it, as in glove.840B: the
    numbers come last.
    """
    first = _line(path, file, 1)
    count, found, begin = 0, 0, 1
    if kind == "word2vec":
        count, said = _header(path, first)
        _check_width(path, said, width)
        first, begin = _line(path, file, 2), 2
    else:
        _check_width(path, _trailing_numbers(first), width)
    line, number = first, begin
    while line:
        where = f"{path}, line {number}"
        line = line.rstrip(b" \r\n")
        if line:
            spaces = line.count(b" ")
            check(
                spaces >= width,
                where=where,
                found=f"a word and {spaces} numbers",
                expected=f"{width} numbers",
            )
            at = line.index(b" ") if spaces == width else len(line.rsplit(b" ", width)[0])
            yield where, line[:at], line[at + 1 :]
            found += 1
            if found % REPORT_EVERY == 0:
                progress("reading word vectors", found, count)
        number += 1
        line = _line(path, file, number)
    if kind == "word2vec":
        check(
            found == count,
            where=str(path),
            found=f"{found:,} entries",
            expected=f"{count:,}, as the first line says",
        )


def _binary_entries(
    path: epath.Path, file: IO[bytes], kind: str, width: int, progress: Progress
) -> Iterator[tuple[str, bytes, memoryview]]:
    """(where, word, its numbers as bytes). Some writers end an entry with a newline, some do not."""
    count, said = _header(path, _line(path, file, 1))
    _check_width(path, said, width)
    buffer, at = b"", 0
    for number in range(1, count + 1):
        if len(buffer) - at < LONGEST_WORD + 4 * width:
            buffer, at = buffer[at:] + file.read(BLOCK), 0
        where = f"{path}, entry {number:,}"
        space = buffer.find(b" ", at, at + LONGEST_WORD)
        if space < 0:
            check(
                buffer[at:].strip(b"\n"),
                where=where,
                found="the end",
                expected=f"{count:,} entries, as the first line says",
            )
            raise mismatch(
                where=where,
                found=f"no space in {LONGEST_WORD:,} bytes",
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
    rest = buffer[at : at + BLOCK].strip(b"\n") or file.read(1)
    check(
        not rest,
        where=str(path),
        found=f"bytes after entry {count:,}",
        expected="the end, as the first line says",
    )


def _format(path: epath.Path) -> Format:
    """By the first line; and where it is a header, by whether text follows with a number in it."""
    with _opened(path) as file:
        first = _line(path, file, 1)
        sample = file.read(LONGEST_WORD)
    if not HEADER.fullmatch(first):
        expected = (
            "a word and its numbers, or a count and a width (of a file that is unpacked, or .gz)"
        )
        check(
            _trailing_numbers(first) > 0,
            where=f"{path}, line 1",
            found=repr(first[:40]),
            expected=expected,
        )
        return "glove"
    fields = sample.split(b"\n")[0].split(b" ")[1:]
    text = not CONTROL.search(sample) and any(map(_is_number, fields))
    return "word2vec" if text else "word2vec-binary"


def _trailing_numbers(line: bytes) -> int:
    """How many numbers a line ends with, its first field, the word, not counted."""
    fields = line.rstrip(b" \r\n").split(b" ")[1:]
    return sum(1 for _ in takewhile(_is_number, reversed(fields)))


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _header(path: epath.Path, line: bytes) -> tuple[int, int]:
    found = HEADER.fullmatch(line)
    if found is None:
        raise UserError(
            f"{path}, line 1: found {line[:40]!r}, expected a count of words and a width"
        )
    check(
        int(found[1]) > 0,
        where=f"{path}, line 1",
        found="a count of 0 words",
        expected="one or more",
    )
    return int(found[1]), int(found[2])


def _check_width(path: epath.Path, found: int, width: int) -> None:
    check(0 < width <= WIDEST, where="width", found=width, expected=f"1 to {WIDEST:,}")
    check(
        found == width,
        where=f"{path}, line 1",
        found=f"vectors of width {found}",
        expected=f"{width}, the width of the model's embeddings",
    )


def _line(path: epath.Path, file: IO[bytes], number: int) -> bytes:
    line = file.readline(LONGEST_LINE + 1)
    check(
        len(line) <= LONGEST_LINE,
        where=f"{path}, line {number}",
        found="no end of the line",
        expected=f"{LONGEST_LINE:,} bytes at most",
    )
    return line


@contextmanager
def _opened(path: epath.Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where it is gzip's; what cannot be read is one line."""
    try:
        with path.open("rb") as raw:
            # A store's own file cannot read a line up to a limit.
            file = io.BufferedReader(raw, BLOCK)
            yield gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP else file  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as word vectors ({reason})") from error
