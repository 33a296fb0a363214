"""Reading of files that may be compressed, by their ending."""

import bz2
import gzip
import io
import lzma
import posixpath
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from bertjax.errors import UserError, mismatch
from bertjax.file_kinds import HEAD_BYTES, kind_of
from bertjax.given_files import check_is_no_pipe, place_of


def _open_gzip(file: IO[bytes]) -> IO[bytes]:
    # By name: the first parameter of `GzipFile` is a path, unlike those of the other two.
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]


def _open_zstd(file: IO[bytes]) -> IO[bytes]:
    # Imported late: few corpora are in this form.
    import pyarrow as pa

    # Buffered, because pyarrow's stream has no lines.
    return io.BufferedReader(pa.CompressedInputStream(file, "zstd"))


OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
}
"""Decompressors by the ending of a file; what they return can be read only from the beginning."""
TAR_ENDINGS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""Endings of compressed tar archives, each with the key of `OPENERS` for it."""


def compression_of(name: str) -> str:
    """Return the key of `OPENERS` that a file's ending names, in small letters; "" if none."""
    ending = posixpath.splitext(name)[1].lower()
    ending = TAR_ENDINGS.get(ending, ending)
    return ending if ending in OPENERS else ""


def is_compressed(name: str) -> bool:
    """Return true if `opened` decompresses the file, by its ending.

    Such a file can be read only from its beginning.
    """
    return compression_of(name) != ""


@contextmanager
def read_errors(name: str, compression: str, head: Callable[[], bytes]) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a `UserError` naming it.

    `compression` is a key of `OPENERS`, or empty; `head` returns the file's first bytes.
    """
    try:
        yield
    # gzip raises EOFError where a file is cut off; LZMAError and zlib.error are no OSErrors.
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # Errors of a decompressor are OSErrors without a number; those of the system have one.
        if not compression or getattr(error, "errno", None) is not None:
            raise UserError(
                f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
            ) from error
        kind = kind_of(head())
        if kind and kind.ending != compression:
            raise mismatch(
                where=name, found=kind.name, expected=f"what its ending says, {compression}"
            ) from error
        raise UserError(f"{name}: is truncated or no whole {compression} file ({error})") from error


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes, decompressed if its ending is one of `OPENERS`.

    Raises `UserError`, naming the file, if it cannot be read or is damaged.
    """
    path = place_of(name, any_bytes=True)
    check_is_no_pipe(path)
    compression = compression_of(name)

    def head() -> bytes:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)

    with read_errors(name, compression, head), path.open("rb") as raw:
        yield OPENERS[compression](raw) if compression else raw
