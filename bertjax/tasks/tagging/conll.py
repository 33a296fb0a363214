"""Reading and writing of tagged sentences: CoNLL files, and tables with lists of words and tags."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from etils import epath

from bertjax.errors import check
from bertjax.storage import write_whole
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.lines import BYTE_ORDER_MARK, decoded_lines
from bertjax.tasks.files.row import TableRow

log = logging.getLogger("bertjax")

DOCUMENT = "-DOCSTART-"
"""The first column of the line that begins a document."""
TOKEN_FIELDS = ("tokens", "words")
TAG_FIELDS = ("ner", "ner_tags", "tags")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*:|simple:")
"""A language code before a word: in WikiANN's files every word has one, as in en:Paris."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file: numbers from 0, or negative numbers that count from the end."""

    word: int = 0
    tag: int = -1
    comments: bool = False
    """True if a line that begins with # is a comment; in most files such a line is a word."""
    numbered: bool = False
    """True if the first column has the word's number; lines without a number there are no words."""

    def minimum(self, tags: bool) -> int:
        """Return the minimum number of columns of a line; with `tags`, the tag is included."""
        needed = [_needed(self.word)]
        if tags:
            needed.append(_needed(self.tag))
            if self.word >= 0 > self.tag:
                # The word is counted from the beginning and the tag from the end. With fewer
                # columns than this, the tag would be the word or a column before it.
                needed.append(self.word + 2)
        return max(needed)


def _needed(column: int) -> int:
    return column + 1 if column >= 0 else -column


CONLL_U = Columns(word=1, tag=3, comments=True, numbered=True)
"""The columns FORM and UPOS of https://universaldependencies.org/format.html.

Lines of ranges (3-4) and of empty nodes (5.1) are no words.
"""


def columns_of(path: epath.PathLike) -> Columns:
    """Return the columns of a file by its name.

    If the name ends in .conllu, perhaps with the ending of a compression after it, they are the
    columns of CoNLL-U. Otherwise the word is in the first column and the tag in the last.
    """
    return CONLL_U if ".conllu" in epath.Path(path).suffixes else Columns()


def read_conll(
    path: epath.PathLike, *, tags: bool = True, columns: Columns | None = None
) -> list[TaggedExample]:
    """Return the sentences of a file; the id of each is FILE:LINE of its first word.

    Columns are separated by tabs, or by spaces if the line has no tab. A sentence ends at an empty
    line (one with only white space or byte order marks) and at a -DOCSTART- line. If all words of
    the file begin with the same language code such as `en:`, as in WikiANN, it is removed. Without
    `tags` one column is enough, and the column of the tag is not read.

    Raises `UserError`, with the number of the line, if a line is not UTF-8, has another number of
    columns than the line of the first word, or has an empty word or tag. It is also raised if the
    file has no sentence.
    """
    path = epath.Path(path)
    sentences = _sentences(path, columns or columns_of(path), tags)
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


def _sentences(path: epath.Path, columns: Columns, tags: bool) -> list[list["_Line"]]:
    """Return for each sentence the lines of its words; sentences without words are left out."""
    sentences: list[list[_Line]] = []
    words: list[_Line] = []
    for line in _lines(path, columns, tags=tags):
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
) -> None:
    """Write the lines of the CoNLL file `source`, byte for byte, with the predicted tags.

    `predictions` has the tags of each sentence of the file. A predicted tag replaces the tag in its
    column. In a file with one column, and with `keep_tags`, it is added as a new last column (the
    input format of conlleval). `path` is written completely or not at all. Raises `UserError` as
    `read_conll` does, if writing fails, and if the numbers of words and predicted tags differ.
    """
    source = epath.Path(source)
    columns = columns or columns_of(source)
    # A test set may have no tags, so none are asked for.
    lines = list(_lines(source, columns, tags=False))
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


def tagged_rows(
    table_rows: Iterable[TableRow], *, tag_field: str = "", tags: bool = True
) -> list[TaggedExample]:
    """Return the sentences of table rows with lists of words and tags, as in TFDS and JSON lines.

    The words are in the field `tokens` or `words`. The tags are in `tag_field`, by default the
    first of `ner`, `ner_tags` and `tags` that the row has. The id is FILE:NUMBER. Raises
    `UserError` with the row if these are not lists of strings or have different lengths.
    """
    examples = []
    for row in table_rows:
        words = _strings(row, _field(row, TOKEN_FIELDS))
        own_tags = None
        if tags:
            own_tags = _strings(row, tag_field or _field(row, TAG_FIELDS))
            check(
                len(own_tags) == len(words),
                where=row.where,
                found=f"{len(own_tags)} tags",
                expected=f"{len(words)}, as many as there are words",
            )
        identifier = f"{epath.Path(row.file).name}:{row.number}"
        examples.append(TaggedExample(identifier, words, own_tags))
    return examples


def _field(row: TableRow, names: Sequence[str]) -> str:
    """Return the first of `names` that the row has; `names[0]` if it has none of them."""
    return next((name for name in names if name in row.values), names[0])


def _strings(row: TableRow, name: str) -> tuple[str, ...]:
    values = row.value(name)
    check(
        isinstance(values, list) and all(isinstance(value, str) for value in values),
        where=f"{row.where}, {name}",
        found=repr(values)[:80],
        expected="a list of strings",
    )
    return tuple(values)


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


def _lines(path: epath.Path, columns: Columns, *, tags: bool) -> Iterator[_Line]:
    """Yield all lines of a file; errors as in `read_conll`."""
    expected: tuple[int, int] | None = None  # the number of columns, and the line that has them
    for number, text, end in decoded_lines(path):
        # The mark stays in `text`: `write_conll` copies lines byte for byte.
        bare = text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
        content = bare.strip().strip(BYTE_ORDER_MARK)
        if not content or content.split(None, 1)[0] == DOCUMENT:
            yield _Line(number, text, end, ends_sentence=True)
            continue
        fields = _split(bare)[0::2]
        is_comment = columns.comments and bare.startswith("#")
        if is_comment or (columns.numbered and not fields[0].isdigit()):
            yield _Line(number, text, end)
            continue
        where = f"{path}, line {number}"
        if expected is None:
            expected = len(fields), number
            minimum = columns.minimum(tags)
            check(
                len(fields) >= minimum,
                where=where,
                found=_counted(fields),
                expected=f"{minimum} or more, the word's and the tag's",
            )
        check(
            # If a line lacked a column, its last one would not be the tag.
            len(fields) == expected[0],
            where=where,
            found=_counted(fields),
            expected=f"{expected[0]} as in line {expected[1]}",
        )
        word = fields[columns.word]
        check(word, where=where, found="an empty word", expected="a word")
        tag = ""
        if tags:
            tag = fields[columns.tag]
            check(tag, where=where, found=f"no tag of the word {word!r}", expected="one")
        yield _Line(number, text, end, word, tag)


def _split(text: str) -> list[str]:
    """Return the columns with the separators between them."""
    # At tabs and spaces only: words may hold other white space, as U+00A0 or U+2028.
    return re.split(r"(\t)", text) if "\t" in text else re.split(r"( +)", text.strip(" "))


def _counted(fields: Sequence[str]) -> str:
    return f"{len(fields)} column{'s' if len(fields) > 1 else ''}"


def _with_tag(line: _Line, columns: Columns, tag: str, keep_tags: bool) -> str:
    """Return a line with its tag replaced, or added as a further column."""
    parts = _split(line.text)
    # `before` and `after` are the spaces around the columns, which `_split` removes.
    before, _, after = line.text.partition("".join(parts))
    fields = (len(parts) + 1) // 2
    if keep_tags or fields < columns.minimum(tags=True):
        # The file's own: `_split` would take a line of spaces with one tab for two columns.
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
