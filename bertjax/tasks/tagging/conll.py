"""CoNLL files: a word a line, its tag in a column; and sentences of other sources, as lists."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from etils import epath

from bertjax.errors import UserError, check
from bertjax.storage import opened, write_whole
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.tables import TableRow

log = logging.getLogger(__name__)

DOCUMENT = "-DOCSTART-"
TOKEN_FIELDS = ("tokens", "words")
TAG_FIELDS = ("ner", "ner_tags", "tags")
# Of WikiANN, whose files say en:Paris; every word has it.
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*:|simple:")


@dataclass(frozen=True)
class Columns:
    """Where a file has what; columns count from 0, or from the end as -1."""

    word: int = 0
    tag: int = -1
    comments: bool = False
    """Whether a line that begins with # is a comment; in most files it is a word."""
    numbered: bool = False
    """Whether the first column numbers the words; lines with more than a number there are none."""


CONLL_U = Columns(word=1, tag=3, comments=True, numbered=True)
"""FORM and UPOS; ranges (3-4) and empty nodes (5.1) are no words.
https://universaldependencies.org/format.html
"""


def columns_of(path: epath.PathLike) -> Columns:
    """The columns of CoNLL-U for a name ending in .conllu, with or without a compressed file's
    ending; else the word in the first and the tag in the last column.
    """
    return CONLL_U if ".conllu" in epath.Path(path).suffixes else Columns()


def read_conll(
    path: epath.PathLike, *, tags: bool = True, columns: Columns | None = None
) -> list[TaggedExample]:
    """The sentences of a file; the id of each is FILE:LINE of its first word.

    Columns are separated by tabs, in a line without any by blanks. Sentences end at lines of
    nothing but white space and byte order marks, and at -DOCSTART- lines. `en:` and the like is
    taken off the words where all of the file have it, as in WikiANN. Without `tags` one column is
    enough, and what stands in the tag's is not looked at.

    Raises `UserError` with the line's number for a line that is not UTF-8, has another number of
    columns than the first word's line, or an empty word or tag; and where the file has no sentence.
    """
    path = epath.Path(path)
    columns = columns or columns_of(path)
    sentences: list[list[_Line]] = [[]]
    for line in _lines(path, columns, tags=tags):
        if line.word:
            sentences[-1].append(line)
        elif line.ends:
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    check(sentences, where=str(path), found="no sentence", expected="one or more")
    cut = _language(path, sentences)
    return [
        TaggedExample(
            id=f"{path.name}:{sentence[0].number}",
            words=tuple(line.word[cut:] for line in sentence),
            tags=tuple(line.tag for line in sentence) if tags else None,
            lines=tuple(line.text for line in sentence),
        )
        for sentence in sentences
    ]


def write_conll(
    path: epath.PathLike,
    source: epath.PathLike,
    predictions: Sequence[Sequence[str]],
    *,
    columns: Columns | None = None,
    keep_tags: bool = False,
) -> None:
    """Write the lines of the CoNLL file `source`, byte for byte, but for the tags: `predictions` of
    its sentences.

    Each stands in its column in place of what the file has there; in a file of one column, and with
    `keep_tags`, in a further one at the end (conlleval's input). `path` is whole or not there.
    Raises `UserError` as `read_conll`, where the disk refuses, and where the words are not as many
    as the predictions.
    """
    source = epath.Path(source)
    columns = columns or columns_of(source)
    given = [tag for sentence in predictions for tag in sentence]
    lines = list(_lines(source, columns, tags=False))
    words = sum(bool(line.word) for line in lines)
    check(
        words == len(given),
        where=str(source),
        found=f"{words} words",
        expected=f"{len(given)}, as many as there are predictions",
    )
    left = iter(given)
    made = [
        _tagged(line, columns, next(left), keep_tags) if line.word else line.text + line.end
        for line in lines
    ]
    write_whole(epath.Path(path), "".join(made).encode())


def tagged_rows(
    rows: Iterable[TableRow], *, tag_field: str = "", tags: bool = True
) -> list[TaggedExample]:
    """The sentences of rows that hold lists, as those of TFDS and of JSON lines do.

    Words are from `tokens` or `words`, tags from `tag_field` (default: the first of `ner`,
    `ner_tags`, `tags` that there is). The id is FILE:NUMBER. Raises `UserError` naming the row
    where these are no lists of strings.
    """
    found = []
    for row in rows:
        words = _strings(row, _field(row, TOKEN_FIELDS))
        own = _strings(row, tag_field or _field(row, TAG_FIELDS)) if tags else None
        if own is not None:
            check(
                len(own) == len(words),
                where=row.where,
                found=f"{len(own)} tags",
                expected=f"{len(words)}, as many as there are words",
            )
        found.append(TaggedExample(f"{epath.Path(row.file).name}:{row.number}", words, own))
    return found


def _field(row: TableRow, names: Sequence[str]) -> str:
    return next((name for name in names if name in row.values), names[0])


def _strings(row: TableRow, name: str) -> tuple[str, ...]:
    values = row.value(name)
    good = isinstance(values, list) and all(isinstance(value, str) for value in values)
    check(good, where=f"{row.where}, {name}", found=repr(values)[:80], expected="a list of strings")
    return tuple(values)


class _Line(NamedTuple):
    number: int
    text: str
    end: str
    """What ends it: a line feed, with or without a carriage return, or nothing."""
    word: str = ""
    """Empty where there is none."""
    tag: str = ""
    ends: bool = False
    """Whether a sentence ends here."""


def _lines(path: epath.Path, columns: Columns, *, tags: bool) -> Iterator[_Line]:
    first: tuple[int, int] | None = None  # columns, and the line that has them
    for number, text, end in _decoded(path):
        bare = text.removeprefix("\ufeff") if number == 1 else text
        content = bare.strip().strip("\ufeff")
        if not content or content.split(None, 1)[0] == DOCUMENT:
            yield _Line(number, text, end, ends=True)
            continue
        fields = _split(bare)[0::2]
        if (columns.comments and bare.startswith("#")) or (
            columns.numbered and not fields[0].isdigit()
        ):
            yield _Line(number, text, end)
            continue
        where = f"{path}, line {number}"
        if first is None:
            first = len(fields), number
            least = _least(columns, tags)
            check(
                len(fields) >= least,
                where=where,
                found=_counted(fields),
                expected=f"{least} or more, the word's and the tag's",
            )
        check(
            len(fields) == first[0],
            where=where,
            found=_counted(fields),
            expected=f"{first[0]} as in line {first[1]}",
        )
        word, tag = fields[columns.word], fields[columns.tag] if tags else ""
        check(word, where=where, found="an empty word", expected="a word")
        check(
            bool(tag) or not tags, where=where, found=f"no tag of the word {word!r}", expected="one"
        )
        yield _Line(number, text, end, word, tag)


def _decoded(path: epath.Path) -> Iterator[tuple[int, str, str]]:
    """(number, text, end) of each line; the text of the first has its byte order mark."""
    with opened(str(path)) as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip(b"\n").removesuffix(b"\r")
            try:
                yield number, text.decode(), line[len(text) :].decode()
            except UnicodeDecodeError as error:
                found = f"the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
                raise UserError(f"{path}, line {number}: found {found}, expected UTF-8") from error


def _split(text: str) -> list[str]:
    """Columns and what separates them, in turn."""
    return re.split(r"(\t)", text) if "\t" in text else re.split(r"( +)", text.strip(" "))


def _counted(fields: Sequence[str]) -> str:
    return f"{len(fields)} column{'s' if len(fields) > 1 else ''}"


def _least(columns: Columns, tags: bool) -> int:
    """Columns that a line must have."""
    places = [columns.word, columns.tag] if tags else [columns.word]
    both = tags and columns.word >= 0 > columns.tag
    return max(
        [place + 1 if place >= 0 else -place for place in places]
        + [columns.word + 2 if both else 1]
    )


def _tagged(line: _Line, columns: Columns, tag: str, keep_tags: bool) -> str:
    """The line with another tag."""
    parts = _split(line.text)
    begin, _, rest = line.text.partition("".join(parts))
    fields = (len(parts) + 1) // 2
    if keep_tags or fields < _least(columns, tags=True):
        separator = parts[1] if fields > 1 else "\t"
        parts += [separator, tag]
    else:
        parts[2 * (columns.tag % fields)] = tag
    return begin + "".join(parts) + rest + line.end


def _language(path: epath.Path, sentences: Sequence[Sequence[_Line]]) -> int:
    """Characters of the language that every word begins with: 0 where one does not."""
    found = LANGUAGE.match(sentences[0][0].word)
    if not found or not all(
        line.word.startswith(found[0]) for sentence in sentences for line in sentence
    ):
        return 0
    log.info("%s: every word begins with %s, which is taken off", path, found[0])
    return len(found[0])
