"""Lines of a text file, read in blocks."""

from collections.abc import Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus.formats import decoding
from bertjax.data.corpus.formats.decoding import NEWLINE, decode
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.errors import mismatch
from bertjax.file_kinds import kind_of

RETURN = b"\r"


def read_lines(
    source: SourceFile, config: DataConfig, extent: Extent, *, whole: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """(number, text, ends) of each line, read in blocks of `decoding.BLOCK_BYTES`.

    A line ends with a line feed, with carriage returns before it or not, or with a carriage return
    alone, as on old Macs. Only line feeds count in the number, as in most editors.
    A line longer than a block is yielded in parts, and `ends` is True only for the last part. With
    `whole`, lines are never divided. Line numbers count from the start of the extent; `line_name`
    converts them to line numbers of the file.
    """
    # Bytes are read and not text, since an extent is in bytes, and a bad byte must be named by its
    # line.
    number = 1
    # Bytes left to read. A negative value means "to the end of the file", and it does not change.
    left = extent.end - extent.begin if extent.end >= 0 else -1
    carry: list[bytes] = []
    at_file_start = extent.begin == 0
    name = source.name
    with source.opened() as file:
        if extent.begin:
            file.seek(extent.begin)
        while True:
            # With no bytes left to read it returns nothing, which counts as the end.
            block = file.read(decoding.BLOCK_BYTES if left < 0 else min(decoding.BLOCK_BYTES, left))
            if left > 0:
                left -= len(block)
            if at_file_start:
                _check_text(block, name)
                at_file_start = False
            last = not block
            if block and whole and NEWLINE not in block:
                carry.append(block)
                continue
            data = b"".join([*carry, block])
            carry.clear()
            end = len(data) if last else _block_end(data, whole)
            if end < len(data):
                carry.append(data[end:])
            text = decode(memoryview(data)[:end], config, name, extent, number)
            # A line may have half a gigabyte, so each copy is deleted as soon as possible.
            del data, block
            # Not `splitlines`, which splits at U+2028 too: a JSON string may hold that as it is
            # (RFC 8259, section 7).
            *lines, rest = text.split("\n")
            has_returns = "\r" in text
            del text
            for line in lines:
                if has_returns:
                    for part in line.rstrip("\r").split("\r"):
                        yield number, part, True
                else:
                    yield number, line, True
                number += 1
            if has_returns:
                *parts, rest = rest.split("\r")
                for part in parts:
                    yield number, part, True
            if rest:
                yield number, rest, last
            if last:
                return


def _check_text(head: bytes, name: str) -> None:
    """Raise `UserError` if a file of another kind begins with `head`.

    The first byte that is not UTF-8 would not tell which kind; with `data.encoding_errors replace`
    the file would even be read.
    """
    kind = kind_of(head)
    if kind:
        or_ending = f", or the ending {kind.ending}" if kind.ending else ""
        raise mismatch(where=name, found=kind.name, expected=f"text in UTF-8{or_ending}")


def _block_end(data: bytes, whole: bool) -> int:
    """The number of bytes of a block to use now.

    The block is cut after the last newline. If it has no newline, it is cut after the last carriage
    return, else after the last space, else between two characters.
    """
    end = data.rfind(NEWLINE) + 1
    # With less than a block, the line's end may come next: the bytes wait for more.
    if end or whole or len(data) < decoding.BLOCK_BYTES:
        return end
    # Carriage returns at the end stay with what follows: that may be their line feed.
    body = data.rstrip(RETURN)
    # Unless there is little else, so that the bytes that wait do not add up.
    if len(body) < len(data) // 2:
        body = data
    for separator in (RETURN, b" "):
        end = body.rfind(separator) + 1
        if end:
            return end
    end = len(body) - 1
    # Bytes 10xxxxxx continue a UTF-8 character; a character has at most three such bytes.
    while end > len(body) - 4 and body[end] & 0xC0 == 0x80:
        end -= 1
    return end
