"""Read lines of text from files, and write their vectors as .npy or Parquet."""

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Literal, NamedTuple

import numpy as np
from etils import epath

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.given_files import place_of
from bertjax.inference.embed import Pooling, Vectors
from bertjax.storage import CHUNK_BYTES, is_local, opened, written_whole
from bertjax.tasks.files.lines import UTF8, is_utf8, old_lines

VectorDtype = Literal["float32", "float16"]
STDIN = "-"
WINDOW = 64  # batches of texts that are predicted, and printed, together


def read_lines(name: str, encoding: str = UTF8) -> Iterator[str]:
    """Yield the lines of a text file, or of standard input (`-`), without their line ends.

    A file may be compressed: .gz, .bz2, .xz or .zst. Raises `UserError` naming the file if it
    cannot be read, and also the line if the line is not text in this encoding.
    """
    if name == STDIN:
        check(
            # Python sets it to None where the shell has closed it, by `<&-`.
            sys.stdin is not None,
            where="standard input",
            found="it closed",
            expected="one text a line",
        )
        yield from _decoded("standard input", sys.stdin.buffer, encoding)
        return
    with opened(name) as file:
        yield from _decoded(name, file, encoding)


def windows(texts: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Yield the texts in lists of `WINDOW` batches: a file may have more than fit into memory."""
    remaining = iter(texts)
    size = min(WINDOW * batch_size, sys.maxsize)  # more is no size in Python
    while window := list(islice(remaining, size)):
        yield window


def count_lines(name: str) -> int:
    """Return the number of lines of a file; 0 for standard input, which can be read only once."""
    if name == STDIN:
        return 0
    with opened(name) as file:
        return sum(1 for _ in file)


def _decoded(where: str, file: Iterable[bytes], encoding: str) -> Iterator[str]:
    if not is_utf8(encoding):
        for old_line in old_lines(where, file, encoding):
            yield old_line.text
        return
    # Bytes are split at line feeds only. `str.splitlines` would also split at form feeds and
    # U+2028.
    for number, line in enumerate(file, 1):
        # A byte order mark may stand before the first line.
        try:
            text = line.decode("utf-8-sig" if number == 1 else UTF8)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise UserError(
                f"{where}, line {number}: found the byte 0x{byte:02x}, which is not UTF-8,"
                " expected UTF-8"
            ) from error
        # Only the line end is removed: other white space belongs to the text.
        yield text.removesuffix("\n").removesuffix("\r")


def vector_file(path: epath.PathLike) -> epath.Path:
    """Return `path` if its ending is .npy or .parquet; else raise `UserError`."""
    path = place_of(path)
    check(
        path.suffix in (".npy", ".parquet"),
        where=str(path),
        found=f"the ending {path.suffix!r}",
        expected=".npy or .parquet",
    )
    return path


def offsets_file(path: epath.Path) -> epath.Path:
    """Return the path of the file of offsets beside the .npy file `path`: NAME.offsets.npy."""
    return path.parent / f"{path.stem}.offsets.npy"


class VectorCounts(NamedTuple):
    """Counts of what `write_vectors` wrote."""

    vectors: int
    """One for each text; with pooling `tokens`, one for each token."""
    texts: int
    truncated: int
    """Number of texts that were cut to the maximum length."""


def write_vectors(
    path: epath.Path,
    windows: Iterable[Vectors],
    tokenizer: Tokenizer | None,
    *,
    width: int,
    pooling: Pooling,
    dtype: VectorDtype = "float32",
) -> VectorCounts:
    """Write the vectors as `dtype` to a file, which gets its name only when it is complete.

    The tokenizer names the tokens; it may be None where `pooling` is not `tokens`. An older file of
    that name is replaced.

    `.npy`: an array [texts, width]. With pooling `tokens` the array is [all tokens, width], and
    NAME.offsets.npy beside it has the offsets, int64 [texts + 1]: the vectors of text i are
    `vectors[offsets[i] : offsets[i + 1]]`, those of special tokens included.

    `.parquet`: a row for each text, and a row group for each window. The columns are `line` (int64,
    from 1) and `vector` (a list of fixed size). With pooling `tokens` the columns are `line`,
    `tokens` (a list of strings) and `vectors` (a list of lists of fixed size).

    Raises `UserError` if the file has another ending or cannot be written, or if a number is NaN or
    too large for `dtype`.
    """
    is_npy = vector_file(path).suffix == ".npy"
    count = _Count(keeps_lengths=is_npy and pooling == "tokens")

    def write_offsets() -> None:
        if is_npy and pooling == "tokens":
            _replace_offsets(path, count.lengths)

    with _seekable(path, write_offsets) as file:
        counted = count.while_reading(windows, dtype)
        if is_npy:
            _write_npy(file, counted, width, dtype)
        else:
            _write_parquet(file, counted, tokenizer, width, pooling, dtype)
    return VectorCounts(count.vectors, count.texts, count.truncated)


def _replace_offsets(path: epath.Path, lengths: list[np.ndarray]) -> None:
    """Write the offsets of new vectors, and remove the old vectors `path`.

    The new vectors have no name yet, but nothing is left to write of them.
    """
    # The 0 is the first offset; it also makes the array int64 if there is no text.
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    with written_whole(offsets_file(path)) as file:
        file.write(_npy_bytes(offsets))
        file.flush()
        # Only now, when a full disk cannot stop the new files, and before the offsets get their
        # name: so a kill cannot leave vectors beside the offsets of others.
        path.unlink(missing_ok=True)


class _Count:
    """Counts of the windows that `while_reading` has yielded so far."""

    def __init__(self, *, keeps_lengths: bool) -> None:
        self.vectors = self.texts = self.truncated = 0
        self._keeps_lengths = keeps_lengths
        self.lengths: list[np.ndarray] = []
        """Numbers of tokens of the texts, one array for each window; empty if they are not kept."""

    def while_reading(self, windows: Iterable[Vectors], dtype: VectorDtype) -> Iterator[Vectors]:
        """Yield the windows with their vectors in `dtype`."""
        for part in windows:
            self.vectors += len(part.vectors)
            self.texts += len(part.offsets) - 1
            self.truncated += part.truncated
            if self._keeps_lengths:
                self.lengths.append(np.diff(part.offsets))
            yield part._replace(vectors=_cast(part.vectors, dtype))


def _cast(vectors: np.ndarray, dtype: VectorDtype) -> np.ndarray:
    # Above the limit NumPy's cast gives infinity. NaN is refused too: `NaN <= limit` is false.
    limit = np.finfo(dtype).max
    largest = np.max(np.abs(vectors), initial=0)
    check(
        largest <= limit,
        where="vectors",
        found=f"the number {largest:.4g}",
        expected=f"at most {limit}, the largest {dtype}",
    )
    return vectors.astype(dtype, copy=False)


def _write_npy(file: IO[bytes], windows: Iterable[Vectors], width: int, dtype: VectorDtype) -> None:
    header_bytes = _write_npy_header(file, 0, width, dtype)
    count = 0
    for part in windows:
        # The array's own buffer: `tobytes` would copy the whole window.
        file.write(part.vectors.data)
        count += len(part.vectors)
    # The number of vectors is known only now, so the header is written again. Its size is the same:
    # NumPy pads a header so that the first axis can grow.
    if _write_npy_header(file, count, width, dtype) != header_bytes:
        raise RuntimeError("numpy's header changed its size")


def _write_npy_header(file: IO[bytes], count: int, width: int, dtype: VectorDtype) -> int:
    """Write the header of an array [count, width] at the file's beginning; return its size."""
    file.seek(0)
    fields = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, width)}
    # Version 1.0 of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html limits a
    # header to 64 KiB; this one is far smaller.
    np.lib.format.write_array_header_1_0(file, fields)
    return file.tell()


def _npy_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _write_parquet(
    file: IO[bytes],
    windows: Iterable[Vectors],
    tokenizer: Tokenizer | None,
    width: int,
    pooling: Pooling,
    dtype: VectorDtype,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    number = pa.float32() if dtype == "float32" else pa.float16()
    # `element` is the name that Parquet gives to the values of a list:
    # https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists
    vector = pa.list_(pa.field("element", number, nullable=False), width)
    if pooling == "tokens":
        columns = {"tokens": pa.list_(pa.string()), "vectors": pa.list_(vector)}
    else:
        columns = {"vector": vector}
    schema = pa.schema({"line": pa.int64(), **columns})
    line = 1
    # Only tokens are encoded by a dictionary: tokens repeat, vectors do not.
    with parquet.ParquetWriter(file, schema, use_dictionary=["tokens.list.element"]) as writer:
        for part in windows:
            texts = len(part.offsets) - 1
            flat = pa.array(part.vectors.reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, type=vector)
            arrays = [pa.array(np.arange(line, line + texts))]
            if pooling == "tokens" and tokenizer is not None:
                # Arrow's lists have int32 offsets; a window has far fewer than 2 ** 31 tokens.
                offsets = pa.array(part.offsets.astype(np.int32))
                pieces = pa.array(tokenizer.pieces(part.ids.tolist()), pa.string())
                arrays.append(pa.ListArray.from_arrays(offsets, pieces))
                arrays.append(pa.ListArray.from_arrays(offsets, vectors))
            else:
                arrays.append(vectors)
            writer.write_table(pa.table(arrays, schema=schema))
            line += texts


@contextmanager
def _seekable(path: epath.Path, before_named: Callable[[], None]) -> Iterator[IO[bytes]]:
    """Open a file as `written_whole` does, such that the block may also seek in it.

    `before_named` is called when all of it is written, before it gets its name. A file of a store
    such as gs:// can only be written from beginning to end. So the block writes a temporary
    local file, which is then copied to the store.
    """
    if is_local(path):
        with written_whole(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            before_named()
        return
    with tempfile.TemporaryFile() as here:
        yield here
        here.seek(0)
        with written_whole(path) as file:
            shutil.copyfileobj(here, file, CHUNK_BYTES)
            before_named()
