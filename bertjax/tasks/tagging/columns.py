"""Columns of CoNLL files: which one has the word and which one the tag."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import check, mismatch
from bertjax.tasks.files.lines import BYTE_ORDER_MARK, UTF8, Line, decoded_lines

DOCUMENT = "-DOCSTART-"
"""The first column of the line that begins a document."""
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
"""The number of a range (3-4) or an empty node (5.1) of CoNLL-U."""
CONLL_U_NAMES = (
    "id",
    "form",
    "lemma",
    "upos",
    "xpos",
    "feats",
    "head",
    "deprel",
    "deps",
    "misc",
)
"""The names of the columns in https://universaldependencies.org/format.html, in small letters."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file: numbers from 0, or negative numbers that count from the end."""

    word: int = 0
    tag: int = -1
    comments: bool = False
    """True if every line that begins with # is a comment; in most files such a line is a word."""
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

    def is_no_word(self, text: str, fields: Sequence[str]) -> bool:
        """Return whether a line is a comment or, in a numbered file, has no number of a word."""
        if self.comments and text.startswith("#"):
            return True
        return self.numbered and not fields[0].isdigit()


def _needed(column: int) -> int:
    return column + 1 if column >= 0 else -column


CONLL_U = Columns(word=1, tag=3, comments=True, numbered=True)
"""The columns FORM and UPOS of https://universaldependencies.org/format.html.

Lines of ranges (3-4) and of empty nodes (5.1) are no words.
"""
NUMBERED = Columns(word=1, comments=True, numbered=True)
"""The columns of other files in which each word has its number first, such as GermEval 2014."""


def split_columns(text: str) -> list[str]:
    """Return the columns of a line with the separators between them."""
    # At tabs and spaces only: words may hold other white space, as U+00A0 or U+2028.
    return re.split(r"(\t)", text) if "\t" in text else re.split(r"( +)", text.strip(" "))


def fields_of(text: str) -> list[str]:
    """Return the columns of a line."""
    return text.split("\t") if "\t" in text else re.split(" +", text.strip(" "))


def bare_text(line: Line) -> str:
    """Return the text of a line without a byte order mark."""
    return line.text.removeprefix(BYTE_ORDER_MARK) if line.number == 1 else line.text


def ends_sentence(text: str) -> bool:
    """Return whether a line has only white space or byte order marks, or begins a document."""
    content = text.strip().strip(BYTE_ORDER_MARK)
    return not content or content.split(None, 1)[0] == DOCUMENT


def columns_of(path: epath.PathLike, *, tags: bool = True, encoding: str = UTF8) -> Columns:
    """Return the columns of a file; with `tags`, one is the tag's.

    They are those of CoNLL-U if the name ends in .conllu, perhaps with the ending of a compression
    after it, or if the first column has the words' numbers and there are ten columns. In other
    files with the words' numbers the word is in the second column and the tag in the last.
    Otherwise the word is in the first column.

    Raises `UserError` if the file cannot be read.
    """
    if ".conllu" in epath.Path(path).suffixes:
        return CONLL_U
    width = _width_if_numbered(decoded_lines(path, encoding), minimum=3 if tags else 2)
    if width == 0:
        return Columns()
    return CONLL_U if width == len(CONLL_U_NAMES) else NUMBERED


def _width_if_numbered(lines: Iterable[Line], minimum: int) -> int:
    """Return the number of columns of a file whose first column has the words' numbers; else 0.

    Each number is the one before plus 1, or at the beginning of a sentence 0 or 1. It takes a
    sentence of two words to tell, and `minimum` columns.
    """
    width = last = 0
    in_sentence = has_two = False
    for line in lines:
        text = bare_text(line)
        if ends_sentence(text):
            in_sentence = False
            continue
        fields = fields_of(text)
        if text.startswith("#") or NO_WORD.fullmatch(fields[0]):
            continue
        if len(fields) < minimum or not fields[0].isdecimal():
            return 0
        number = int(fields[0])
        is_next = number == last + 1
        if in_sentence and not is_next:
            return 0
        if not in_sentence and not (is_next or number in (0, 1)):
            return 0
        has_two = has_two or in_sentence
        width, last, in_sentence = len(fields), number, True
    return width if has_two else 0


def chosen_columns(path: epath.PathLike, options: FinetuneConfig, *, tags: bool) -> Columns:
    """Return the columns of a file, changed by options; with `tags`, one is the tag's.

    `finetune.label_column` is the column of the tag, `finetune.text_columns` that of the word. Each
    is a number from 0, a name in `finetune.columns`, or a name of CoNLL-U such as XPOS in a file of
    that format. Nothing else of the file's columns changes with them.

    Raises `UserError` for another name, and if both are the same column.
    """
    found = columns_of(path, tags=tags, encoding=options.encoding)
    word, tag = found.word, found.tag
    # Of several tasks, another one may have the columns of texts.
    if options.text_columns and len(options.tasks) <= 1:
        check(
            len(options.text_columns) == 1,
            where="finetune.text_columns",
            found=", ".join(options.text_columns),
            expected="one column, the word's",
        )
        word = _number(options.text_columns[0], "finetune.text_columns", options.columns, found)
    if options.label_column:
        tag = _number(options.label_column, "finetune.label_column", options.columns, found)
    check(
        tag != word,
        where="finetune.label_column",
        found=options.label_column,
        expected="another column than the word's, which is number"
        f" {word} from 0 (finetune.text_columns)",
    )
    return dataclasses.replace(found, word=word, tag=tag)


def _number(name: str, where: str, given: Sequence[str], found: Columns) -> int:
    """Return the number of a column that an option names."""
    known = [*given] or ([*CONLL_U_NAMES] if found == CONLL_U else [])
    if name in known:
        return known.index(name)
    if not given and name.lower() in known:
        return known.index(name.lower())
    if name.isdecimal():
        return int(name)
    names = f"one of {', '.join(known)}, or " if known else ""
    raise mismatch(
        where=where, found=name, expected=f"{names}the number of a CoNLL file's column, from 0"
    )
