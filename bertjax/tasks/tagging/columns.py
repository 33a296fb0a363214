"""Columns of CoNLL files: which one has the word and which one the tag."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import check, mismatch
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.files.lines import BYTE_ORDER_MARK, UTF8, Line, decoded_lines

OPTIONS = {"words": "--finetune.text-columns", "tags": "--finetune.label-column"}
"""The options that give the columns of words and of tags."""
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
    """True if the first column has the word's number; ranges and empty nodes are no words."""

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
        return self.numbered and NO_WORD.fullmatch(fields[0]) is not None


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


def is_conll_u(path: epath.PathLike) -> bool:
    """Return whether a file's name says CoNLL-U; the ending of a compression may follow."""
    return ".conllu" in epath.Path(path).suffixes


def columns_of(
    path: epath.PathLike, *, tags: bool = True, encoding: str = UTF8, word_is_given: bool = False
) -> Columns:
    """Return the columns of a file; with `tags`, one is the tag's.

    They are those of CoNLL-U if the name ends in .conllu, perhaps with the ending of a compression
    after it, or if the first column has the words' numbers and there are ten columns. In other
    files with the words' numbers the word is in the second column and the tag in the last.
    Otherwise the word is in the first column.

    Raises `UserError` if the file cannot be read. It is also raised, with the number of the line,
    if nearly all lines begin with a number but these do not count the words: they could be the
    words. With `word_is_given` an option tells which column has the words, so they may be anything.
    """
    if is_conll_u(path):
        return CONLL_U
    numbering = _numbering(decoded_lines(path, encoding), minimum=3 if tags else 2)
    if numbering is None:
        return Columns()
    if numbering.odd_line and not word_is_given:
        raise mismatch(
            where=f"{path}, line {numbering.odd_line}",
            found=numbering.odd_text,
            expected="the words' numbers in the first column, each one more than the number before"
            " (or the column of the words, from 0, in --finetune.text-columns)",
        )
    return CONLL_U if numbering.columns == len(CONLL_U_NAMES) else NUMBERED


class _Numbering(NamedTuple):
    """The numbers in the first column of a file."""

    columns: int
    """The number of columns."""
    odd_line: int = 0
    """Number of the first line whose number does not go on counting; 0 if there is none."""
    odd_text: str = ""
    """The number of that line and the one before, for a message."""


MAX_NUMBER = 9
"""Maximum number of digits of a word's number."""
NUMBERED_SHARE = 0.8
"""The share of lines that begin with a number from which these may be the words' numbers.

Text has far fewer words of digits alone; a numbered file may have a few lines without a number.
"""
ENOUGH_OTHERS = 10
"""After so many lines that do not begin with a number, the share may decide."""


def _numbering(lines: Iterable[Line], minimum: int) -> _Numbering | None:
    """Return the numbers of a file if nearly all words' lines begin with one; else None.

    Each number should be the one before plus 1, or at the beginning of a sentence 0 or 1. The first
    line needs `minimum` columns.
    """
    numbering, last = _Numbering(0), 0
    in_sentence = counts_on = False
    numbers = others = 0
    hash_signs: list[tuple[int, int]] = []
    for line in lines:
        text = bare_text(line)
        if ends_sentence(text):
            in_sentence = False
            continue
        fields = fields_of(text)
        if text.startswith("#") or NO_WORD.fullmatch(fields[0]):
            if fields[0] == "#":
                hash_signs.append((line.number, len(fields)))
            continue
        if not numbers + others and len(fields) < minimum:
            return None
        is_number = fields[0].isdecimal() and len(fields[0]) <= MAX_NUMBER
        numbers, others = numbers + is_number, others + (not is_number)
        if others >= ENOUGH_OTHERS and _are_words(numbers, others):
            # Most files end here, after their first lines.
            return None
        number = int(fields[0]) if is_number else -1
        starts = not in_sentence and number in (0, 1)
        if not (starts or number == last + 1) and not numbering.odd_line:
            shown = f"{fields[0]!r} at the beginning of a line after the number {last}"
            if not numbers + others > 1:
                shown = f"{fields[0]!r} at the beginning of the first word's line"
            numbering = numbering._replace(odd_line=line.number, odd_text=shown)
        numbering = numbering._replace(columns=len(fields))
        counts_on = counts_on or (in_sentence and number == last + 1)
        last, in_sentence = number, True
    if _are_words(numbers, others):
        return None
    like_words = [number for number, columns in hash_signs if columns == numbering.columns]
    if like_words and not counts_on and not numbering.odd_line:
        # No sentence has a second word, so nothing shows that 1 is a number, and # a comment.
        shown = "'#' at the beginning of a line with as many columns as words have"
        numbering = numbering._replace(odd_line=like_words[0], odd_text=shown)
    return numbering


def _are_words(numbers: int, others: int) -> bool:
    return numbers < NUMBERED_SHARE * max(numbers + others, 1) or not numbers


def gives_word(options: FinetuneConfig) -> bool:
    """Return whether an option gives the column of the words."""
    # Of several tasks, another one may have the columns of texts.
    return bool(options.text_columns) and len(options.tasks) <= 1


def chosen_columns(path: epath.PathLike, options: FinetuneConfig, *, tags: bool) -> Columns:
    """Return the columns of a file, changed by options; with `tags`, one is the tag's.

    `finetune.label_column` is the column of the tag, `finetune.text_columns` that of the word. Each
    is a number from 0, a name in `finetune.columns`, or a name of CoNLL-U such as XPOS in a file of
    that format. Nothing else of the file's columns changes with them.

    Raises `UserError` for another name, and if both are the same column.
    """
    given = gives_word(options)
    own = columns_of(path, tags=tags, encoding=options.encoding, word_is_given=given)
    columns, word, tag = own, own.word, own.tag
    if given:
        check(
            len(options.text_columns) == 1,
            where="finetune.text_columns",
            found=", ".join(options.text_columns),
            expected="one column, the word's",
        )
        word = _number(options.text_columns[0], "finetune.text_columns", options.columns, own)
        if word == 0 and not is_conll_u(path):
            # The first column has words, so it has no numbers.
            columns = Columns()
            tag = columns.tag
    if options.label_column:
        tag = _number(options.label_column, "finetune.label_column", options.columns, own)
    check(
        tag != word,
        where="finetune.label_column",
        found=options.label_column,
        expected="another column than the word's, which is number"
        f" {word} from 0 (finetune.text_columns)",
    )
    return dataclasses.replace(columns, word=word, tag=tag)


def _number(name: str, where: str, given: Sequence[str], own: Columns) -> int:
    """Return the number of a column that an option names; `own` are the columns by the file."""
    known = [*given] or ([*CONLL_U_NAMES] if own == CONLL_U else [])
    if name in known:
        return known.index(name)
    if not given and name.lower() in known:
        return known.index(name.lower())
    if name.isdecimal() and len(name) <= MAX_NUMBER:
        return int(name)
    names = f"one of {', '.join(known)}, or " if known else ""
    raise mismatch(
        where=where, found=name, expected=f"{names}the number of a CoNLL file's column, from 0"
    )


def check_columns(
    name: str, examples: Iterable[TaggedExample], expected: tuple[int | None, ...]
) -> None:
    """Raise `UserError` with the sentence if examples come from other columns than `expected`.

    These are the columns of training: of words and of tags. What is None is not compared.
    """
    for example in examples:
        if example.columns == expected:
            continue
        for what, own, other in zip(OPTIONS, example.columns, expected, strict=False):
            check(
                None in (own, other) or own == other,
                where=f"{name}: sentence {example.id}",
                found=f"the {what} in {_shown(own)}",
                expected=f"{_shown(other)}, as in the training files (or the column, from 0, in"
                f" {OPTIONS[what]})",
            )


def _shown(column: int | None) -> str:
    return "the last column" if column == -1 else f"column {column} from 0"
