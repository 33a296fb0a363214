"""Splitter of texts into sentences: by lines, or by the marks that end a sentence."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

from bertjax.config import DataConfig
from bertjax.data.corpus.sentence_ends import CLOSING_MARK, SentenceEnds

# These names are also written into the manifests of prepared folders.
COUNTED = ("unmarked_documents", "wrapped_documents")
"""Names of the counts that a splitter keeps.

In this order: documents in which next to no sentence ends in a mark, so that a line was read as a
sentence; documents whose lines were read as sentences although they look hard-wrapped.
"""
WRAPPED_SHARE, UNMARKED_SHARE = 0.1, 0.02
"""Shares of documents that look hard-wrapped, or have hardly a mark, above which it is said.

Of a novel's paragraphs, wrapped at 72 characters, 45 % look so; of the same sentences a line each,
none; of the chapters of a manual with a paragraph a line, 3 %. Of English documents, 1 % or fewer
have hardly a mark.
"""
CHARACTERS_PER_MARK = 1000
"""With fewer marks, a text counts as one without marks.

It is three times the longest average sentence of 2,354 English book chapters (301 characters).
"""
_PARAGRAPH = re.compile(r"\n\s*\n")
# Between letters of these scripts a line's end stands for no space: Han, kana, Thai, Lao, Tibetan,
# Burmese, Khmer, and the wide punctuation of Chinese and Japanese.
_SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00020000-\U000323af"
)
_SPACELESS_BREAK = re.compile(rf"(?<=[{_SPACELESS}])[^\S\n]*\n[^\S\n]*(?=[{_SPACELESS}])")
# The guess whether lines are wrapped reads no more of a document.
_GUESS_LINES = 16
_NEAR_WIDTH = 0.9


def split_sentences(text: str) -> list[str]:
    """Return the sentences of `text` without empty ones; white space is reduced to single spaces.

    A blank line ends a sentence. A mark such as . ! ? that is followed by a space ends a sentence
    too, unless the word before it is an initial or a common abbreviation, or a lower-case letter
    comes next in a text with capitals. Marks such as 。 or the Hindi । always end a sentence. In a
    text that has next to no marks, a line is a sentence.
    """
    return _by_marks_or_lines(text, Counter())


def make_splitter(
    config: DataConfig, text_format: str, counts: Counter[str]
) -> Callable[[str], list[str]]:
    """Return the function that splits a text of `text_format` as `config.sentences` says.

    It updates `counts` (`COUNTED`) at each text.
    """
    how = config.sentences
    if how == "lines" or (how == "auto" and text_format == "bert"):
        return partial(_by_lines, counts=counts)
    if how == "auto":
        return partial(_by_marks_or_lines, counts=counts)
    return {"paragraphs": _by_paragraphs, "wrapped": _by_joined_lines, "document": _whole}[how]


def describe_doubts(counts: Mapping[str, int]) -> list[str]:
    """Return a line for each finding that `data.sentences` should perhaps be set.

    `counts` are those of a manifest; one of an older preparation lacks these counts.
    """
    documents = counts.get("documents_read", 0)
    unmarked, wrapped = [counts.get(name, 0) for name in COUNTED]
    doubts = []
    if unmarked > UNMARKED_SHARE * documents:
        doubts.append(
            f"sentences: {unmarked:,} of {documents:,} documents have hardly a mark that ends a"
            " sentence; their lines were read as sentences"
        )
    if wrapped > WRAPPED_SHARE * documents:
        doubts.append(
            f"sentences: lines were read as sentences, but look hard-wrapped in {wrapped:,} of"
            f" {documents:,} documents; data.sentences wrapped joins them (with data.format file,"
            " a file is one document)"
        )
    return doubts


def _by_marks_or_lines(text: str, counts: Counter[str]) -> list[str]:
    sentences, marks = _find(text, _PARAGRAPH.split(text))
    # Most texts have enough marks, and are not looked at again.
    if CHARACTERS_PER_MARK * marks >= len(text) or not _is_unmarked(text, marks):
        return sentences
    counts["unmarked_documents"] += 1
    return _by_paragraphs(text)


def _by_paragraphs(text: str) -> list[str]:
    """Return the sentences of a text in which each line is a paragraph."""
    return _find(text, text.split("\n"))[0]


def _by_joined_lines(text: str) -> list[str]:
    """Return the sentences of a text whose paragraphs end at blank lines, not at line ends."""
    joined = _SPACELESS_BREAK.sub("", text)
    return _find(joined, _PARAGRAPH.split(joined))[0]


def _by_lines(text: str, counts: Counter[str]) -> list[str]:
    lines = _lines(text)
    if _looks_wrapped(lines):
        counts["wrapped_documents"] += 1
    return lines


def _whole(text: str) -> list[str]:
    line = " ".join(text.split())
    return [line] if line else []


def _lines(text: str) -> list[str]:
    # Asked once for the whole text: asked line by line, it takes twice the time of the splitting.
    if "  " not in text and text.replace("\n", " ").isprintable():
        return [line for line in map(str.strip, text.split("\n")) if line]
    return [line for line in map(_with_single_spaces, text.split("\n")) if line]


def _with_single_spaces(line: str) -> str:
    """Return the line without white space at its ends, and single spaces in it."""
    line = line.strip()
    # Of white space only the space is printable. This test takes half the time of what it saves.
    if line.isprintable() and "  " not in line:
        return line
    return " ".join(line.split())


def _find(text: str, paragraphs: list[str]) -> tuple[list[str], int]:
    """Return the sentences of `paragraphs`, which are those of `text`, and the number of marks."""
    ends = SentenceEnds(text)
    sentences = []
    marks = 0
    for paragraph in paragraphs:
        line = " ".join(paragraph.split())
        begin = 0
        for end in ends.positions(line):
            sentences.append(line[begin:end].strip())
            begin = end
            marks += 1
        sentences.append(line[begin:].strip())
    return [sentence for sentence in sentences if sentence], marks


def _is_unmarked(text: str, marks: int) -> bool:
    """Return True if a text has so few marks that its lines are better sentences."""
    if len(text) > CHARACTERS_PER_MARK * max(marks, 1):
        return True
    lines = len(_lines(text))
    # Two lines may be a title that was wrapped, but scripts without capitals are often those
    # without marks.
    has_case = text.lower() != text.upper()
    return marks == 0 and lines > (2 if has_case else 1)


def _looks_wrapped(lines: list[str]) -> bool:
    """Return True if these lines seem to be broken at a common width, in mid-sentence.

    That is: at half of the line ends or more, the line has no closing mark, the next one does not
    begin with a capital, and its first word had no room in the line. And sentences end in mid-line.
    """
    lines = lines[:_GUESS_LINES]
    if len(lines) < 3:
        return False
    width = _NEAR_WIDTH * max(map(len, lines))
    broken = 0
    for line, following in pairwise(lines):
        # First the test that most lines fail that are sentences.
        if following[0].isupper() or not following[0].isalpha():
            continue
        if CLOSING_MARK.match(line[-1]):
            continue
        word, space, _ = following.partition(" ")
        # Without spaces a line is broken after any letter.
        room = len(word) + 1 if space else 1
        broken += len(line) + room >= width
    if 2 * broken < len(lines) - 1:
        return False
    text = "\n".join(lines)
    ends = SentenceEnds(text)
    return any(position < len(line) for line in lines for position in ends.positions(line))
