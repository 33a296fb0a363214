"""Lines of a text file, read in blocks."""

from collections.abc import Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus.formats import decoding
from bertjax.data.corpus.formats.decoding import NEWLINE, decode
from bertjax.data.corpus.formats.extent import Extent
from bertjax.storage import opened


def read_lines(
    name: str, config: DataConfig, extent: Extent, *, whole: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """(number, text, ends) of each line, read in blocks of `decoding.BLOCK_BYTES`.

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
    with opened(name) as file:
        if extent.begin:
            file.seek(extent.begin)
        while True:
            # With no bytes left to read it returns nothing, which counts as the end.
            block = file.read(decoding.BLOCK_BYTES if left < 0 else min(decoding.BLOCK_BYTES, left))
            if left > 0:
                left -= len(block)
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
            del text
            for line in lines:
                yield number, line.removesuffix("\r"), True
                number += 1
            if rest:
                yield number, rest, last
            if last:
                return


def _block_end(data: bytes, whole: bool) -> int:
    """The number of bytes of a block to use now.

    The block is cut after the last newline. If it has no newline, it is cut after the last space;
    if it has no space either, between two characters.
    """
    end = data.rfind(NEWLINE) + 1
    # With less than a block, the line's end may come next: the bytes wait for more.
    if end or whole or len(data) < decoding.BLOCK_BYTES:
        return end
    end = data.rfind(b" ") + 1
    if not end:
        end = len(data) - 1
        # Bytes 10xxxxxx continue a UTF-8 character; a character has at most three such bytes.
        while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
    return end
