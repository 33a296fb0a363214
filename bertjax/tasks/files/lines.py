"""Lines of the text files of tasks, decoded, each with its number."""

from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from bertjax.errors import UserError
from bertjax.storage import opened

BYTE_ORDER_MARK = "\ufeff"


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """Number of the line, from 1."""
    text: str
    end: str
    """The line end: a line feed, a carriage return and a line feed, or nothing."""


def decoded_lines(path: epath.PathLike) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, which may be compressed; `UserError` for invalid UTF-8.

    Only a line feed ends a line, because sentences of MNLI contain other line ends of Unicode. A
    byte order mark (`BYTE_ORDER_MARK`) stays in the first line.
    """
    with opened(str(path)) as file:
        for number, raw in enumerate(file, 1):
            content = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield Line(number, content.decode(), raw[len(content) :].decode())
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise UserError(
                    f"{path}, line {number}: found the byte 0x{byte:02x}, which is not UTF-8,"
                    " expected UTF-8"
                ) from error


def unmarked_lines(path: epath.PathLike) -> Iterator[Line]:
    """Yield the lines as `decoded_lines` does, but without a byte order mark in the first line."""
    for line in decoded_lines(path):
        if line.number == 1:
            line = line._replace(text=line.text.removeprefix(BYTE_ORDER_MARK))
        yield line
