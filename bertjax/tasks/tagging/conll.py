"""Reading and writing of CoNLL files: sentences with a word and its tag on each line."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etils import epath

from bertjax.errors import check
from bertjax.storage import write_whole
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.lines import UTF8, Line, decoded_lines
from bertjax.tasks.tagging.columns import (
    Columns,
    bare_text,
    columns_of,
    ends_sentence,
    fields_of,
    split_columns,
)

log = logging.getLogger("bertjax")

COMMENT = "# "
"""Beginning of a line before a sentence that may be a comment."""
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*:|simple:")
"""A language code before a word: in WikiANN's files every word has one, as in en:Paris."""


def read_conll(
    path: epath.PathLike,
    *,
    tags: bool = True,
    columns: Columns | None = None,
    encoding: str = UTF8,
) -> list[TaggedExample]:
    """Return the sentences of a file; the id of each is FILE:LINE of its first word.

    Columns are separated by tabs, or by spaces if the line has no tab. A sentence ends at an empty
    line (one with only white space or byte order marks) and at a -DOCSTART- line. A line before the
    words of a sentence that begins with # and a space is a comment if it has another number of
    columns than words have, as in MultiCoNER. If all words of the file begin with the same language
    code such as `en:`, as in WikiANN, it is removed. Without `tags` one column is enough, and the
    column of the tag is not read.

    Raises `UserError`, with the number of the line, if a line is not UTF-8, has another number of
    columns than the line of the first word, or has an empty word or tag. It is also raised if the
    file has no sentence.
    """
    path = epath.Path(path)
    columns = columns or columns_of(path, tags=tags, encoding=encoding)
    sentences = _sentences(path, columns, tags, encoding)
    check(sentences, where=str(path), found="no sentence", expected="one or more")
    prefix = _language(path, sentences)
    examples = []
    for sentence in sentences:
        identifier = f"{path.name}:{sentence[0].number}"
        words = tuple(line.word.removeprefix(prefix) for line in sentence)
        own_tags = None
        if tags:
            own_tags = tuple(line.tag for line in sentence)
        lines = tuple(line.text for line in sentence)
        examples.append(TaggedExample(identifier, words, own_tags, lines))
    return examples


def _sentences(
    path: epath.Path, columns: Columns, tags: bool, encoding: str
) -> list[list["_Line"]]:
    """Return for each sentence the lines of its words; sentences without words are left out."""
    sentences: list[list[_Line]] = []
    words: list[_Line] = []
    for line in _lines(path, columns, tags=tags, encoding=encoding):
        if line.word:
            words.append(line)
        elif line.ends_sentence and words:
            sentences.append(words)
            words = []
    if words:
        sentences.append(words)
    return sentences


def write_conll(
    path: epath.PathLike,
    source: epath.PathLike,
    predictions: Sequence[Sequence[str]],
    *,
    columns: Columns | None = None,
    keep_tags: bool = False,
    encoding: str = UTF8,
) -> None:
    """Write the lines of the CoNLL file `source`, byte for byte, with the predicted tags, in UTF-8.

    `predictions` has the tags of each sentence of the file. A predicted tag replaces the tag in its
    column. In a file with one column, and with `keep_tags`, it is added as a new last column (the
    input format of conlleval). `path` is written completely or not at all. Raises `UserError` as
    `read_conll` does, if writing fails, and if the numbers of words and predicted tags differ.
    """
    source = epath.Path(source)
    columns = columns or columns_of(source, tags=False, encoding=encoding)
    # A test set may have no tags, so none are asked for.
    lines = list(_lines(source, columns, tags=False, encoding=encoding))
    tags = [tag for sentence in predictions for tag in sentence]
    words = sum(bool(line.word) for line in lines)
    check(
        # Before the file is written: predictions of another file would be tags of the wrong words.
        words == len(tags),
        where=str(source),
        found=f"{words} words",
        expected=f"{len(tags)}, as many as there are predictions",
    )
    remaining = iter(tags)
    written = []
    for line in lines:
        if line.word:
            written.append(_with_tag(line, columns, next(remaining), keep_tags))
        else:
            written.append(line.text + line.end)
    write_whole(epath.Path(path), "".join(written).encode())


class _Line(NamedTuple):
    """One line of a file."""

    number: int
    text: str
    end: str
    """The line end: a line feed, a carriage return and a line feed, or nothing."""
    word: str = ""
    """Empty for a line without a word."""
    tag: str = ""
    ends_sentence: bool = False


def _lines(path: epath.Path, columns: Columns, *, tags: bool, encoding: str) -> Iterator[_Line]:
    """Yield all lines of a file; errors as in `read_conll`."""
    width = _width(path, columns, tags=tags, encoding=encoding)
    in_sentence = False
    for line in decoded_lines(path, encoding):
        # The mark stays in `line.text`: `write_conll` copies lines byte for byte.
        bare = bare_text(line)
        if ends_sentence(bare):
            in_sentence = False
            yield _Line(*line, ends_sentence=True)
            continue
        fields = fields_of(bare)
        is_odd = len(fields) != width.columns
        is_comment = not in_sentence and is_odd and bare.startswith(COMMENT)
        if is_comment or columns.is_no_word(bare, fields):
            yield _Line(*line)
            continue
        in_sentence = True
        where = f"{path}, line {line.number}"
        check(
            # If a line lacked a column, its last one would not be the tag.
            not is_odd,
            where=where,
            found=_counted(fields),
            expected=f"{width.columns} as in line {width.line}",
        )
        word = fields[columns.word]
        check(word, where=where, found="an empty word", expected="a word")
        tag = ""
        if tags:
            tag = fields[columns.tag]
            check(tag, where=where, found=f"no tag of the word {word!r}", expected="one")
        yield _Line(*line, word, tag)


class _Width(NamedTuple):
    """The number of columns of the words' lines."""

    columns: int
    line: int
    """Number of a line with them."""


def _width(path: epath.Path, columns: Columns, *, tags: bool, encoding: str) -> _Width:
    """Return the number of columns of the first word; `UserError` if there are too few.

    Lines that may be comments are asked only if there are no others.
    """
    first: tuple[Line, list[str]] | None = None
    for line in decoded_lines(path, encoding):
        bare = bare_text(line)
        fields = fields_of(bare)
        if ends_sentence(bare) or columns.is_no_word(bare, fields):
            continue
        may_be_comment = bare.startswith(COMMENT)
        if first is None or not may_be_comment:
            first = line, fields
        if not may_be_comment:
            break
    if first is None:
        return _Width(0, 0)
    line, fields = first
    minimum = columns.minimum(tags)
    check(
        len(fields) >= minimum,
        where=f"{path}, line {line.number}",
        found=_counted(fields),
        expected=f"{minimum} or more, the word's and the tag's",
    )
    return _Width(len(fields), line.number)


def _counted(fields: Sequence[str]) -> str:
    return f"{len(fields)} column{'s' if len(fields) > 1 else ''}"


def _with_tag(line: _Line, columns: Columns, tag: str, keep_tags: bool) -> str:
    """Return a line with its tag replaced, or added as a further column."""
    parts = split_columns(line.text)
    # `before` and `after` are the spaces around the columns, which `split_columns` removes.
    before, _, after = line.text.partition("".join(parts))
    fields = (len(parts) + 1) // 2
    if keep_tags or fields < columns.minimum(tags=True):
        # The file's own: `split_columns` would take a line of spaces with one tab for two columns.
        separator = parts[1] if fields > 1 else "\t"
        parts += [separator, tag]
    else:
        parts[2 * (columns.tag % fields)] = tag
    return before + "".join(parts) + after + line.end


def _language(path: epath.Path, sentences: Sequence[Sequence[_Line]]) -> str:
    """Return the language code with which all words begin, such as `en:`; empty without one."""
    match = LANGUAGE.match(sentences[0][0].word)
    if match is None:
        return ""
    prefix = match[0]
    for sentence in sentences:
        if not all(line.word.startswith(prefix) for line in sentence):
            return ""
    log.info("%s: every word begins with %s, which is taken off", path, prefix)
    return prefix
