"""Table of the readers, by format."""

from collections import Counter
from collections.abc import Callable, Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus import python_docs
from bertjax.data.corpus.formats.archives import Member, read_tar, read_zip
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.json_lines import read_jsonl
from bertjax.data.corpus.formats.parquet import read_parquet
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.data.corpus.formats.text_files import read_bert, read_file, read_line
from bertjax.data.corpus.formats.tfds import read_tfds


def _read_python_docs(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str]:
    yield from python_docs.documents()


Reader = Callable[[SourceFile, DataConfig, Extent, Counter[str]], Iterator[str | None]]

READERS: dict[str, Reader] = {
    "bert": read_bert,
    "file": read_file,
    "line": read_line,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "tfds": read_tfds,
    "python-docs": _read_python_docs,
}
"""Functions that yield the texts of an extent of a file, by its format.

The caller drops empty texts. An entry that is null, in place of a text, is None. The places where
long documents are cut are counted (`cleaning.LONG_DOCUMENT_CUTS`).
"""
ARCHIVE_READERS: dict[str, Callable[[str, DataConfig, Extent], Iterator[Member]]] = {
    "zip": read_zip,
    "tar": read_tar,
}
"""Functions that yield the files of an extent of an archive, by `Source.format`."""
