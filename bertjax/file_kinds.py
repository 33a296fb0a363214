"""Kinds of files that are told by their first bytes, for messages about files of another kind."""

import re
from typing import NamedTuple

HEAD_BYTES = 262
"""The number of first bytes that `kind_of` looks at."""


class FileKind(NamedTuple):
    """A kind of file."""

    name: str
    """As in a message: `found NAME`."""
    ending: str
    """The ending with which bertjax reads it; empty if it does not."""


# The first bytes of each kind. None of them begins a text: they have bytes that are not UTF-8,
# control characters, or a word that only such files begin with.
_KINDS: dict[bytes, FileKind] = {
    rb"\x1f\x8b": FileKind("gzip data", ".gz"),
    # A frame, or the frame to skip with which parallel writers begin (RFC 8878, section 3.1).
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": FileKind("zstd data", ".zst"),
    rb"\xfd7zXZ\x00": FileKind("xz data", ".xz"),
    rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": FileKind("bzip2 data", ".bz2"),
    rb"PK(?:\x03\x04|\x05\x06|\x07\x08)": FileKind("a zip archive", ".zip"),
    rb".{257}ustar": FileKind("a tar archive", ".tar"),
    rb"PAR1\x15": FileKind("a Parquet file", ".parquet"),
    rb"7z\xbc\xaf\x27\x1c": FileKind("a 7z archive", ""),
    rb"Rar!\x1a\x07": FileKind("a rar archive", ""),
    rb"\x04\x22\x4d\x18": FileKind("lz4 data", ""),
    rb"\xff\x06\x00\x00sNaPpY": FileKind("snappy data", ""),
    rb"LZIP\x01": FileKind("lzip data", ""),
    rb"\x5d\x00\x00": FileKind("lzma data", ""),
    rb"\x1f[\x9d\xa0]": FileKind("data of compress (.Z)", ""),
    rb"PARE": FileKind("an encrypted Parquet file", ""),
    rb"ARROW1\x00\x00": FileKind("an Arrow file", ""),
    # `datasets` of Hugging Face writes its `.arrow` files in this form.
    rb"\xff\xff\xff\xff": FileKind("an Arrow stream", ""),
    rb"FEA1": FileKind("a Feather file", ""),
    rb"Obj\x01": FileKind("an Avro file", ""),
    rb"SQLite format 3\x00": FileKind("an SQLite database", ""),
    rb"\x89HDF\r\n": FileKind("an HDF5 file", ""),
    rb"\x80[\x02-\x05]": FileKind("a Python pickle", ""),
    rb"%PDF-\d": FileKind("a PDF document", ""),
    rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff": FileKind("text in UTF-32", ""),
    rb"\xff\xfe|\xfe\xff": FileKind("text in UTF-16", ""),
}
_PATTERNS = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in _KINDS.items()]


def kind_of(head: bytes) -> FileKind | None:
    """Return the kind of the file that begins with `head`; None for text, and kinds not listed."""
    for pattern, kind in _PATTERNS:
        if pattern.match(head):
            return kind
    return None
