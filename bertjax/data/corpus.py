"""Documents from files, folders, TensorFlow Datasets, or CPython itself, one at a time."""

import bz2
import glob
import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

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
BY_ENDING = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """One file of a corpus, or one data set."""

    name: str
    """Its path, or `tfds:NAME`, or `python-docs`."""
    format: str
    """How it is read: a value of `DataConfig.format` but `auto`, or `tfds`, or `python-docs`."""
    size: int = 0
    """Bytes on the disk; 0 where it is no file."""


def find_sources(config: DataConfig) -> list[Source]:
    """The sources that `config.corpus` names, each once, in the order of their names.

    Raises `UserError` for a name that matches no file.
    """
    found: dict[str, Source] = {}
    for name in config.corpus:
        if name == "python-docs":
            found[name] = Source(name, name)
        elif name.startswith("tfds:"):
            found[name] = Source(name, "tfds")
        else:
            files = _files(name)
            check(
                len(files) > 0,
                f"data.corpus {name}",
                "no such file",
                "a file, a folder, a glob, tfds:NAME or python-docs",
            )
            found |= {str(path): Source(str(path), _format(config, path), path.stat().length) for path in files}
    return [found[name] for name in sorted(found)]


def fingerprint(source: Source) -> str:
    """A digest that changes when a file's size or time of change does; of other sources, of the name."""
    facts = source.name
    if source.format not in ("tfds", "python-docs"):
        stat = epath.Path(source.name).stat()
        facts += f" {stat.length} {stat.mtime}"
    return hashlib.sha256(facts.encode()).hexdigest()


def read_documents(source: Source, config: DataConfig) -> Iterator[Document]:
    """The documents of a source, as sentences; empty ones are left out.

    Memory is bounded by the longest document. Raises `UserError` naming the file, and the line
    where there is one, for what cannot be read: a file that is empty, not UTF-8, damaged, or
    with a broken JSON line or without the field `config.text_field`.
    """
    some = False
    for document in _READERS[source.format](source, config):
        if document:
            some = True
            yield document
    check(some, source.name, "no text", "one document or more")


def _files(name: str) -> list[epath.Path]:
    path = epath.Path(name)
    if path.is_dir():
        shown = [p for p in path.iterdir() if not p.name.startswith(".")]
        below = [p for folder in shown if folder.is_dir() for p in _files(str(folder))]
        return sorted([*(p for p in shown if p.is_file()), *below])
    if path.exists():
        return [path]
    return [epath.Path(p) for p in sorted(glob.glob(name, recursive=True)) if epath.Path(p).is_file()]


def _format(config: DataConfig, path: epath.Path) -> str:
    if config.format != "auto":
        return config.format
    plain = path.with_suffix("") if path.suffix in OPENERS else path
    return BY_ENDING.get(plain.suffix, "bert")


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its ending; a damaged file is a `UserError`."""
    path = epath.Path(source.name)
    try:
        with path.open("rb") as raw:
            wrap = OPENERS.get(path.suffix)
            yield wrap(raw) if wrap else raw
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{source.name}: is truncated or no whole {path.suffix} file ({error})") from error
    except OSError as error:
        raise UserError(f"{source.name}: cannot be read ({error.strerror or error})") from error


def _lines(source: Source, config: DataConfig) -> Iterator[tuple[int, str]]:
    """Numbered lines, without their ends."""
    with _opened(source) as file:
        for number, line in enumerate(file, 1):
            yield number, _decode(source, config, line, number).rstrip("\r\n")


def _decode(source: Source, config: DataConfig, raw: bytes, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8", config.encoding_errors)
    except UnicodeDecodeError as error:
        # A whole file comes as one piece, numbered 1: the line is found by counting.
        where = f"{source.name}, line {number + raw.count(NEWLINE, 0, error.start)}"
        found = f"the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        raise UserError(f"{where}: found {found}, expected UTF-8 (or data.encoding_errors replace)") from error


def _read_bert(source: Source, config: DataConfig) -> Iterator[Document]:
    document: Document = []
    for _, line in _lines(source, config):
        sentence = line.strip()
        if sentence:
            document.append(sentence)
        elif document:
            yield document
            document = []
    yield document


def _read_file(source: Source, config: DataConfig) -> Iterator[Document]:
    with _opened(source) as file:
        yield split_sentences(_decode(source, config, file.read(), 1))


def _read_line(source: Source, config: DataConfig) -> Iterator[Document]:
    for _, line in _lines(source, config):
        yield split_sentences(line)


def _read_jsonl(source: Source, config: DataConfig) -> Iterator[Document]:
    for number, line in _lines(source, config):
        if not line.strip():
            continue
        where = f"{source.name}, line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: found broken JSON ({error}), expected one object a line") from error
        check(isinstance(value, dict), where, f"JSON of type {type(value).__name__}", "an object")
        yield split_sentences(_text(value, config, where))


def _text(value: dict[str, Any], config: DataConfig, where: str) -> str:
    field = config.text_field
    check(field in value, where, f"the fields {', '.join(map(str, value)) or 'none'}", f"data.text_field {field!r}")
    text = value[field]
    check(isinstance(text, str), f"{where}, {field}", f"a value of type {type(text).__name__}", "text")
    return text


def _read_parquet(source: Source, config: DataConfig) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with epath.Path(source.name).open("rb") as raw:
            file = pq.ParquetFile(raw)
            names, field = file.schema_arrow.names, config.text_field
            check(field in names, source.name, f"the columns {', '.join(names)}", f"data.text_field {field!r}")
            for batch in file.iter_batches(batch_size=256, columns=[field]):
                for text in batch.column(0).to_pylist():
                    found = f"a value of type {type(text).__name__}"
                    check(isinstance(text, str), f"{source.name}, column {field}", found, "text")
                    yield split_sentences(text)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source.name}: cannot be read as Parquet ({' '.join(str(error).split())})") from error


def _read_tfds(source: Source, config: DataConfig) -> Iterator[Document]:
    import tensorflow_datasets as tfds

    name = source.name.removeprefix("tfds:")
    try:
        dataset = tfds.load(name, split="all", shuffle_files=False)
    except Exception as error:
        # TFDS and its downloader raise whatever their parts raise.
        raise UserError(f"{source.name}: cannot be loaded ({type(error).__name__}: {str(error)[:300]})") from error
    for number, example in enumerate(tfds.as_numpy(dataset)):
        where = f"{source.name}, example {number}"
        value: Any = example.get(config.text_field) if isinstance(example, dict) else None
        check(value is not None, where, f"the fields {', '.join(example)}", f"data.text_field {config.text_field!r}")
        check(isinstance(value, bytes), f"{where}, {config.text_field}", type(value).__name__, "text")
        yield split_sentences(_decode(source, config, value, 1))


def _read_python_docs(source: Source, config: DataConfig) -> Iterator[Document]:
    for text in python_docs.documents():
        yield split_sentences(text)


_READERS: dict[str, Callable[[Source, DataConfig], Iterator[Document]]] = {
    "bert": _read_bert,
    "file": _read_file,
    "line": _read_line,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "tfds": _read_tfds,
    "python-docs": _read_python_docs,
}
