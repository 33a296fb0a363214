"""Text from the bytes of a file; errors name the line."""

import re
from collections.abc import Callable

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.extent import WHOLE, Extent
from bertjax.errors import UserError, mismatch
from bertjax.storage import opened

BLOCK_BYTES = 1 << 20
# Bytes may be searched for it, and for a space: in UTF-8 no other character has a byte of ASCII in
# it (RFC 3629, section 1).
NEWLINE = b"\n"
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(
    raw: bytes | memoryview,
    config: DataConfig,
    name: str,
    extent: Extent = WHOLE,
    line: int = 0,
) -> str:
    """The text of `raw`, whose first line is line `line` of the extent; 0 means no line number."""
    at_file_start = line == 1 and extent.begin == 0
    try:
        # "utf-8-sig" drops a byte order mark, which can stand only at the start of a file.
        return str(raw, "utf-8-sig" if at_file_start else "utf-8", config.encoding_errors)
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        where = line_name(name, extent, line + before.count(NEWLINE)) if line else name
        raise not_utf8(error, where) from error


def not_utf8(error: UnicodeDecodeError, where: str) -> UserError:
    """Return the error that names the byte at which decoding failed."""
    return mismatch(
        where=where,
        found=f"the byte 0x{error.object[error.start]:02x}, which is not UTF-8",
        expected="UTF-8 (or data.encoding_errors replace)",
    )


def without_surrogates(text: str, config: DataConfig, where: Callable[[], str]) -> str:
    r"""`text` with U+FFFD in place of each unpaired surrogate; `UserError` if that is not allowed.

    JSON can express an unpaired surrogate (such as \ud800), but UTF-8 cannot. `where` gives the
    name of the text for the error.
    """
    # ASCII text, the common case, has no surrogates. `isascii` is fast: it reads a flag.
    half = None if text.isascii() else _SURROGATE.search(text)
    if half is None:
        return text
    if config.encoding_errors == "replace":
        return _SURROGATE.sub("\ufffd", text)
    raise mismatch(
        where=where(),
        found=f"half a surrogate pair, \\u{ord(half[0]):04x}",
        expected="whole text (or data.encoding_errors replace)",
    )


def line_name(name: str, extent: Extent, number: int) -> str:
    """The file name and the line number in the file, for line `number` of an extent.

    Only error messages need it, so the lines before the extent are not counted until then.
    """
    left = extent.begin
    if left:
        with opened(name) as file:
            while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
                number += block.count(NEWLINE)
                left -= len(block)
    return f"{name}, line {number}"
