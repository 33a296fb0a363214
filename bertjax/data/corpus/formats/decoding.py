"""Text from the bytes of a file; errors name the line."""

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.extent import WHOLE, Extent
from bertjax.errors import mismatch
from bertjax.storage import opened

BLOCK_BYTES = 1 << 20
# Bytes may be searched for it, and for a space: in UTF-8 no other character has a byte of ASCII in
# it (RFC 3629, section 1).
NEWLINE = b"\n"


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
        before, byte = error.object[: error.start], error.object[error.start]
        where = line_name(name, extent, line + before.count(NEWLINE)) if line else name
        raise mismatch(
            where=where,
            found=f"the byte 0x{byte:02x}, which is not UTF-8",
            expected="UTF-8 (or data.encoding_errors replace)",
        ) from error


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
