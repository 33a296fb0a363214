"""Lines of the text files of tasks, decoded, each with its number."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from etils import epath

from bertjax.errors import UserError, check, mismatch
from bertjax.storage import opened

UTF8 = "utf-8"
BYTE_ORDER_MARK = "\ufeff"
# Control characters by ISO 8859-1, which no text has. Where a file has these bytes, it is in
# Windows-1252, which has quotes and dashes there: https://encoding.spec.whatwg.org/#names-and-labels
# takes the name latin1 for Windows-1252 for this reason.
_CONTROLS = re.compile("[\x80-\x9f]")


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """Number of the line, from 1."""
    text: str
    end: str
    """The line end: a line feed, a carriage return and a line feed, or nothing."""


def decoded_lines(path: epath.PathLike, encoding: str = UTF8) -> Iterator[Line]:
    """Yield the lines of a file, which may be compressed; `encoding` is one with ASCII in it.

    Only a line feed ends a line, because sentences of MNLI contain other line ends of Unicode. A
    byte order mark (`BYTE_ORDER_MARK`) stays in the first line.

    Raises `UserError` for bytes that are not text in this encoding. If `encoding` is not UTF-8, it
    is also raised for a file that is UTF-8, and for the control characters of Latin-1, which
    Windows-1252 has signs in place of.
    """
    if not is_utf8(encoding):
        with opened(str(path)) as file:
            yield from old_lines(str(path), file, encoding)
        return
    with opened(str(path)) as file:
        for number, raw in enumerate(file, 1):
            content = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield Line(number, content.decode(), raw[len(content) :].decode())
            except UnicodeDecodeError as error:
                raise _not_text(error, f"{path}, line {number}", "UTF-8") from error


def unmarked_lines(path: epath.PathLike, encoding: str = UTF8) -> Iterator[Line]:
    """Yield the lines as `decoded_lines` does, but without a byte order mark in the first line."""
    for line in decoded_lines(path, encoding):
        if line.number == 1:
            line = line._replace(text=line.text.removeprefix(BYTE_ORDER_MARK))
        yield line


def is_utf8(encoding: str) -> bool:
    """Return whether this is a name of UTF-8."""
    return codecs.lookup(encoding).name == UTF8


def old_lines(name: str, raw_lines: Iterable[bytes], encoding: str) -> Iterator[Line]:
    """Yield the lines of a file that is not UTF-8; `UserError` if it is UTF-8 after all.

    `name` is what messages call the file. That it is UTF-8 is known, and said, only at its end.
    """
    is_latin1 = codecs.lookup(encoding).name == "iso8859-1"
    has_others, all_utf8 = False, True
    for number, raw in enumerate(raw_lines, 1):
        where = f"{name}, line {number}"
        content = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise _not_text(error, where, encoding) from error
        if is_latin1:
            _check_no_control(text, where)
        if not content.isascii():
            has_others = True
            all_utf8 = all_utf8 and _can_be_utf8(content)
        yield Line(number, text, raw[len(content) :].decode())
    check(
        # Each letter outside of ASCII would be two or three wrong ones. In an old encoding such
        # pairs do not occur all through a text.
        not (has_others and all_utf8),
        where=name,
        found="UTF-8",
        expected=f"{encoding}, as finetune.encoding says; UTF-8 needs no option",
    )


def _check_no_control(text: str, where: str) -> None:
    control = _CONTROLS.search(text)
    if control:
        raise mismatch(
            where=where,
            found=f"the byte 0x{ord(control[0]):02x}, a control character in Latin-1",
            expected="text; in finetune.encoding windows-1252 the byte is a sign",
        )


def _can_be_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_text(error: UnicodeDecodeError, where: str, encoding: str) -> UserError:
    return mismatch(
        where=where,
        found=f"the byte 0x{error.object[error.start]:02x}, which is not {encoding}",
        expected=f"{encoding} (or finetune.encoding, the name of the file's)",
    )
