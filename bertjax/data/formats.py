"""How each format of corpus is read: a document at a time, bad input named by file and line."""

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from etils import epath

from bertjax.config import DataConfig
from bertjax.data import python_docs
from bertjax.data.sentences import split_sentences
from bertjax.errors import UserError, check

Document = list[str]  # sentences, none empty
NEWLINE = b"\n"
OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),  # type: ignore[dict-item,return-value]
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its ending; a damaged file is a `UserError`."""
    path = epath.Path(name)
    try:
        with path.open("rb") as raw:
            wrap = OPENERS.get(path.suffix)
            yield wrap(raw) if wrap else raw
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        # The decompressors' own OSErrors carry no number; the system's do.
        if path.suffix in OPENERS and getattr(error, "errno", None) is None:
            raise UserError(f"{name}: is truncated or no whole {path.suffix} file ({error})") from error
        raise UserError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _lines(name: str, config: DataConfig) -> Iterator[tuple[int, str]]:
    """Numbered lines, without their ends."""
    with _opened(name) as file:
        for number, line in enumerate(file, 1):
            yield number, _decode(line, config, name, number).rstrip("\r\n")


def _decode(raw: bytes, config: DataConfig, where: str, line: int = 0) -> str:
    """Text of `raw`, whose first line is line `line` of the file `where`; 0: it has no lines to name."""
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8", config.encoding_errors)
    except UnicodeDecodeError as error:
        before, byte = error.object[: error.start], error.object[error.start]
        if line:
            where = f"{where}, line {line + before.count(NEWLINE)}"
        found = f"the byte 0x{byte:02x}, which is not UTF-8"
        raise UserError(f"{where}: found {found}, expected UTF-8 (or data.encoding_errors replace)") from error


def _one_line(text: object, most: int = 300) -> str:
    return " ".join(str(text).split())[:most]


def _check_field(names: Iterable[object], config: DataConfig, where: str, kind: str = "fields") -> None:
    found = _one_line(", ".join(map(str, names))) or "none"
    check(config.text_field in names, where, f"the {kind} {found}", f"data.text_field {config.text_field!r}")


def _read_bert(name: str, config: DataConfig) -> Iterator[Document]:
    document: Document = []
    for _, line in _lines(name, config):
        sentence = line.strip()
        if sentence:
            document.append(sentence)
        elif document:
            yield document
            document = []
    yield document


def _read_file(name: str, config: DataConfig) -> Iterator[Document]:
    with _opened(name) as file:
        yield split_sentences(_decode(file.read(), config, name, 1))


def _read_line(name: str, config: DataConfig) -> Iterator[Document]:
    for _, line in _lines(name, config):
        yield split_sentences(line)


def _read_jsonl(name: str, config: DataConfig) -> Iterator[Document]:
    for number, line in _lines(name, config):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: found broken JSON ({error}), expected one object a line") from error
        check(isinstance(value, dict), where, f"JSON of type {type(value).__name__}", "an object")
        _check_field(value, config, where)
        text = value[config.text_field]
        check(isinstance(text, str), f"{where}, {config.text_field}", f"a value of type {type(text).__name__}", "text")
        yield split_sentences(_whole(text, config, where))


def _whole(text: str, config: DataConfig, where: str) -> str:
    r"""`text`, or an error where JSON's \ud800 gave half a surrogate pair, which no file could hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"half a surrogate pair, \\u{ord(text[error.start]):04x}"
        check(config.encoding_errors == "replace", where, found, "whole text (or data.encoding_errors replace)")
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def _read_parquet(name: str, config: DataConfig) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    field, row = config.text_field, 0
    try:
        with epath.Path(name).open("rb") as raw:
            # So pages stream (2 MB); by default a row group's whole column is held (57 MB of 57).
            file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
            _check_field(file.schema_arrow.names, config, name, "columns")
            kind = file.schema_arrow.field(field).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            text = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
            check(kind in text, f"{name}, column {field}", f"values of type {kind}", "text")
            for batch in file.iter_batches(batch_size=64, columns=[field]):
                # As bytes: pyarrow does not check that its strings are UTF-8.
                for value in batch.column(0).cast(kind).cast(pa.large_binary()).to_pylist():
                    row += 1
                    where = f"{name}, row {row}"
                    check(value is not None, f"{where}, {field}", "null", "text")
                    yield split_sentences(_decode(value, config, where))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as Parquet ({_one_line(error)})") from error


def _read_tfds(name: str, config: DataConfig) -> Iterator[Document]:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    try:
        # Without autocache, which holds any data set below 250 MB in memory.
        streamed = tfds.ReadConfig(try_autocache=False)
        dataset = tfds.load(name.removeprefix("tfds:"), split="all", shuffle_files=False, read_config=streamed)
    except Exception as error:
        # TFDS and its downloader raise whatever their parts raise; the first line says what, lists follow.
        reason = _one_line(str(error).strip().partition("\n")[0])
        raise UserError(f"{name}: cannot be loaded ({type(error).__name__}: {reason})") from error
    number = 0
    try:
        for example in tfds.as_numpy(dataset):
            where = f"{name}, example {number}"
            _check_field(example if isinstance(example, dict) else (), config, where)
            value = example[config.text_field]
            found = f"a value of type {type(value).__name__}"
            check(isinstance(value, bytes), f"{where}, {config.text_field}", found, "text")
            yield split_sentences(_decode(value, config, where))
            number += 1
    except tf.errors.OpError as error:
        raise UserError(f"{name}, example {number}: is truncated or damaged ({_one_line(error.message)})") from error


def _read_python_docs(name: str, config: DataConfig) -> Iterator[Document]:
    for text in python_docs.documents():
        yield split_sentences(text)


READERS: dict[str, Callable[[str, DataConfig], Iterator[Document]]] = {
    "bert": _read_bert,
    "file": _read_file,
    "line": _read_line,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfds": _read_tfds,
    "python-docs": _read_python_docs,
}
"""By `Source.format`: the documents of a source's name. Empty ones are the caller's to leave out."""
