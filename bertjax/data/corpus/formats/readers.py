"""Table of the readers, by format."""

from collections.abc import Callable, Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus import python_docs
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.json_lines import read_jsonl
from bertjax.data.corpus.formats.parquet import read_parquet
from bertjax.data.corpus.formats.text_files import read_bert, read_file, read_line
from bertjax.data.corpus.formats.tfds import read_tfds


def _read_python_docs(name: str, config: DataConfig, extent: Extent) -> Iterator[str]:
    yield from python_docs.documents()


READERS: dict[str, Callable[[str, DataConfig, Extent], Iterator[str]]] = {
    "bert": read_bert,
    "file": read_file,
    "line": read_line,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "tfds": read_tfds,
    "python-docs": _read_python_docs,
}
"""Functions that yield the texts of an extent, by `Source.format`. The caller drops empty texts."""
