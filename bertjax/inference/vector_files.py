"""Vectors of lines of text in files: the lines read, and .npy or Parquet written as it comes."""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Literal, NamedTuple

import numpy as np
from etils import epath

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.inference.embed import Pooling, Vectors
from bertjax.storage import is_local, opened, write_whole, written_whole

VectorDtype = Literal["float32", "float16"]
STDIN = "-"


def read_lines(name: str) -> Iterator[str]:
    """The lines of a text file, or of standard input (`-`), without their ends; a file may be .gz,
    .bz2 or .xz.

    Raises `UserError` naming the file where it cannot be read, and the line where that is not
    UTF-8.
    """
    if name == STDIN:
        yield from _decoded("standard input", sys.stdin.buffer)
        return
    with opened(name) as file:
        yield from _decoded(name, file)


def count_lines(name: str) -> int:
    """How many lines `read_lines` gives of a file; 0 for standard input, which can be read only
    once.
    """
    if name == STDIN:
        return 0
    with opened(name) as file:
        return sum(1 for _ in file)


def _decoded(where: str, file: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield (
                line.decode("utf-8-sig" if number == 1 else "utf-8")
                .removesuffix("\n")
                .removesuffix("\r")
            )
        except UnicodeDecodeError as error:
            found = f"the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
            raise UserError(f"{where}, line {number}: found {found}, expected UTF-8") from error


def vector_file(path: epath.PathLike) -> epath.Path:
    """`path`, if its ending is one that `write_vectors` knows; else `UserError`."""
    path = epath.Path(path)
    check(
        path.suffix in (".npy", ".parquet"),
        where=str(path),
        found=f"the ending {path.suffix!r}",
        expected=".npy or .parquet",
    )
    return path


def offsets_file(path: epath.Path) -> epath.Path:
    """Where the offsets of the tokens of a .npy file are: NAME.offsets.npy."""
    return path.parent / f"{path.stem}.offsets.npy"


class Written(NamedTuple):
    """What `write_vectors` wrote."""

    rows: int
    """Texts, or with pooling `tokens` tokens."""
    texts: int
    truncated: int
    """How many texts were cut to the longest length."""


def write_vectors(
    path: epath.Path,
    windows: Iterable[Vectors],
    tokenizer: Tokenizer,
    *,
    width: int,
    pooling: Pooling,
    dtype: VectorDtype = "float32",
) -> Written:
    """Write the vectors, in `dtype`, as a file that is whole or not there; an older one of that
    name is replaced.

    `.npy`: an array [texts, width]. With pooling `tokens` [all tokens, width], and beside it
    NAME.offsets.npy, int64 [texts + 1]: text i's rows are `offsets[i]` to `offsets[i + 1] - 1`,
    [CLS] first and [SEP] last. `.parquet`: a row a text, a row group a window: `line` int64 (from
    1) and `vector`, a list of fixed size; with `tokens` instead `line`, `tokens` (a list of
    strings) and `vectors` (a list of lists of fixed size). Raises `UserError` for another ending,
    when the disk refuses, and for a number that `dtype` does not hold.
    """
    is_npy = vector_file(path).suffix == ".npy"
    rows = texts = truncated = 0
    lengths = [np.zeros(1, np.int64)]

    def counted() -> Iterator[Vectors]:
        nonlocal rows, texts, truncated
        for part in windows:
            rows, texts, truncated = (
                rows + len(part.vectors),
                texts + len(part.offsets) - 1,
                truncated + part.truncated,
            )
            if is_npy and pooling == "tokens":
                lengths.append(np.diff(part.offsets))
            yield part._replace(vectors=_cast(part.vectors, dtype))

    with _seekable(path) as file:
        if not is_npy:
            _write_parquet(file, counted(), tokenizer, width, pooling, dtype)
        else:
            _write_npy(file, counted(), width, dtype)
            if pooling == "tokens":
                # Before the new vectors get their name, and after the old ones lost it: no kill
                # leaves vectors beside another file's offsets.
                path.unlink(missing_ok=True)
                write_whole(offsets_file(path), _npy_bytes(np.cumsum(np.concatenate(lengths))))
    return Written(rows, texts, truncated)


def _cast(vectors: np.ndarray, dtype: VectorDtype) -> np.ndarray:
    most, largest = np.finfo(dtype).max, np.max(np.abs(vectors), initial=0)
    check(
        largest <= most,
        where="vectors",
        found=f"the number {largest:.4g}",
        expected=f"at most {most}, the largest {dtype}",
    )
    return vectors.astype(dtype, copy=False)


def _write_npy(file: IO[bytes], windows: Iterable[Vectors], width: int, dtype: VectorDtype) -> None:
    def header(rows: int) -> int:
        # numpy leaves room in the header for the first axis to grow, so it can be written again at
        # the end.
        file.seek(0)
        fields = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, fields)
        return file.tell()

    begin, rows = header(0), 0
    for part in windows:
        file.write(part.vectors.data)
        rows += len(part.vectors)
    if header(rows) != begin:
        raise RuntimeError("numpy's header changed its size")


def _npy_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _write_parquet(
    file: IO[bytes],
    windows: Iterable[Vectors],
    tokenizer: Tokenizer,
    width: int,
    pooling: Pooling,
    dtype: VectorDtype,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    number = pa.float32() if dtype == "float32" else pa.float16()
    vector, line = pa.list_(pa.field("element", number, nullable=False), width), 1
    columns = (
        {"tokens": pa.list_(pa.string()), "vectors": pa.list_(vector)}
        if pooling == "tokens"
        else {"vector": vector}
    )
    schema = pa.schema({"line": pa.int64(), **columns})
    with parquet.ParquetWriter(file, schema, use_dictionary=["tokens.list.element"]) as writer:
        for part in windows:
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(part.vectors.reshape(-1)), type=vector
            )
            made = [pa.array(np.arange(line, line + len(part.offsets) - 1))]
            if pooling == "tokens":
                offsets = pa.array(part.offsets.astype(np.int32))
                pieces = pa.array(tokenizer.pieces(part.ids.tolist()), pa.string())
                made += [pa.ListArray.from_arrays(offsets, values) for values in (pieces, vectors)]
            else:
                made.append(vectors)
            writer.write_table(pa.table(made, schema=schema))
            line += len(part.offsets) - 1


@contextmanager
def _seekable(path: epath.Path) -> Iterator[IO[bytes]]:
    """`written_whole`, by way of a file here where `path` is in a store, which writes from
    beginning to end only.
    """
    if is_local(path):
        with written_whole(path) as file:
            yield file
        return
    with tempfile.TemporaryFile() as here:
        yield here
        here.seek(0)
        with written_whole(path) as file:
            shutil.copyfileobj(here, file, 1 << 24)
