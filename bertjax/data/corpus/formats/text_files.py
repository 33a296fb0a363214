"""Readers of plain text: documents between blank lines, a document a file, a document a line."""

from collections import Counter
from collections.abc import Iterator

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import LONG_DOCUMENT_CUTS, is_blank
from bertjax.data.corpus.formats import long_texts
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.lines import read_lines
from bertjax.data.corpus.formats.source_file import SourceFile


def read_bert(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str]:
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
            if not blank:
                counts[LONG_DOCUMENT_CUTS] += 1
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line)
    yield "\n".join(document)
    # An extent ends behind a blank line, unless there was none for too long.
    if document and extent.end >= 0:
        counts[LONG_DOCUMENT_CUTS] += 1


def read_file(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line, _ in read_lines(file, config, extent):
        if size > long_texts.MAX_DOCUMENT_CHARACTERS:
            yield "\n".join(lines)
            counts[LONG_DOCUMENT_CUTS] += 1
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield "\n".join(lines)
    # The file goes on in another extent.
    if extent.end >= 0:
        counts[LONG_DOCUMENT_CUTS] += 1


def read_line(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str]:
    for _, line, ends in read_lines(file, config, extent):
        yield line
        if not ends:
            counts[LONG_DOCUMENT_CUTS] += 1
