"""Readers of plain text: documents between blank lines, a document a file, a document a line."""

from collections.abc import Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import is_blank
from bertjax.data.corpus.formats import long_texts
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.lines import read_lines
from bertjax.data.corpus.formats.source_file import SourceFile


def read_bert(file: SourceFile, config: DataConfig, extent: Extent) -> Iterator[str]:
    document: list[str] = []
    size = 0
    begins = True
    for _, line, ends in read_lines(file, config, extent):
        # A part of a long line may be white space alone without being a blank line.
        blank = begins and ends and is_blank(line)
        begins = ends
        if document and (blank or size > long_texts.MAX_DOCUMENT_CHARACTERS):
            # Lines stay lines: in this format each is a sentence.
            yield "\n".join(document)
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line)
    yield "\n".join(document)


def read_file(file: SourceFile, config: DataConfig, extent: Extent) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line, _ in read_lines(file, config, extent):
        lines.append(line)
        size += len(line)
        if size > long_texts.MAX_DOCUMENT_CHARACTERS:
            yield "\n".join(lines)
            lines, size = [], 0
    yield "\n".join(lines)


def read_line(file: SourceFile, config: DataConfig, extent: Extent) -> Iterator[str]:
    for _, line, _ in read_lines(file, config, extent):
        yield line
