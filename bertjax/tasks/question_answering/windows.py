"""Encoding of questions and windows of paragraphs as rows of ids, with each piece's characters."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.losses import is_blank
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.task import EncodedExamples

UNICODE_SIZE = 0x110000
"""Number of code points in Unicode."""

UNKNOWN = -1
"""The position of an answer that is not known; the loss leaves such rows out."""

log = logging.getLogger("bertjax")


@dataclass(frozen=True, kw_only=True)
class EncodedQuestions(EncodedExamples):
    """Rows of questions and windows, with the character range of each piece.

    The pieces of all paragraphs are numbered consecutively; a paragraph with several questions is
    numbered only once. Piece P is at position `window_begins[r] + P - first[r]` of row r.
    """

    window_begins: np.ndarray
    """int64 [items], position in each row of its window's first piece."""
    window_lengths: np.ndarray
    """int64 [items], number of pieces in each row's window."""
    first: np.ndarray
    """int64 [items], number of the first piece in each row's window."""
    begins: np.ndarray
    """int32 [pieces], index in the paragraph of the first character of each piece."""
    ends: np.ndarray
    """int32 [pieces], index after the piece's last character; for white space equal to `begins`."""


@dataclass(frozen=True)
class Paragraphs:
    """The pieces of all paragraphs, joined into one array."""

    ids: np.ndarray
    """int32 [pieces]."""
    offsets: np.ndarray
    """int64 [paragraphs + 1], index in the other arrays where each paragraph begins."""
    begins: np.ndarray
    ends: np.ndarray
    """int32 [pieces] each, as in `EncodedQuestions`."""


def tokenized(texts: Sequence[str], tokenizer: Tokenizer) -> Paragraphs:
    """Return the pieces of each text.

    A piece ends where the next piece with a larger begin begins; white space, control characters
    and what the tokenizer's rules remove, as a delimiter, are not part of it at its end. Combining
    accents, which the tokenizer may drop, belong to the piece of their letter. If one character
    becomes several pieces, each of these pieces has the whole character.
    """
    ids, offsets = tokenizer.encode_batch(texts)
    begins_of_text = tokenizer.encode_begins(texts)
    sizes = np.fromiter(map(len, begins_of_text), np.int64, len(texts))
    # These are two passes over the text. If they differed, answers would be cut at wrong places.
    if not np.array_equal(sizes, np.diff(offsets)):
        raise ValueError("encode_begins has other tokens than encode_batch")
    # The characters of all texts are numbered consecutively, so that all are handled at once.
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    text_begins = np.concatenate([[0], np.cumsum(lengths)])
    base = np.repeat(text_begins[:-1], sizes)
    flat_begins = np.fromiter(chain.from_iterable(begins_of_text), np.int64, int(offsets[-1]))
    # Ascending, as `_answer_pieces` finds answers by binary search.
    begins = np.maximum.accumulate(flat_begins + base)
    ends = _next_larger(begins, np.repeat(text_begins[1:], sizes))
    visible = _visible(texts, int(text_begins[-1]))
    unread = tokenizer.unread(texts)
    if unread is not None:
        visible &= ~unread
    indices = np.arange(len(visible))
    # For each character: the end of the last visible character before it, and the index of the
    # next visible character.
    visible_ends = np.maximum.accumulate(np.where(visible, indices + 1, 0))
    end_before = np.concatenate([[0], visible_ends])
    visible_begins = np.where(visible, indices, len(visible))
    next_visible = np.minimum.accumulate(visible_begins[::-1])[::-1]
    # A piece without a visible character is empty: its begin is limited to its end.
    begins = np.minimum(np.concatenate([next_visible, [len(visible)]])[begins], ends)
    ends = np.maximum(end_before[ends], begins)
    return Paragraphs(
        ids, offsets, (begins - base).astype(np.int32), (ends - base).astype(np.int32)
    )


def _next_larger(begins: np.ndarray, text_ends: np.ndarray) -> np.ndarray:
    """Return for each of `begins` the next larger one, limited to the end of its text; int64.

    `begins` are ascending, and some may be equal.
    """
    count = len(begins)
    is_last_of_equals = np.append(np.diff(begins) > 0, True)[:count]
    candidates = np.where(is_last_of_equals, np.arange(1, count + 1), count)
    following = np.minimum.accumulate(candidates[::-1])[::-1]
    # A number above all stands after the last, so that there the text's end is the least.
    return np.minimum(np.append(begins, np.iinfo(np.int64).max)[following], text_ends)


def _visible(texts: Sequence[str], size: int) -> np.ndarray:
    """Return bool [size]: true for each character of the texts that is visible.

    White space, control characters and format characters are not visible.
    """
    # UTF-32 has one number for each character of Python's strings. Half of a surrogate pair is no
    # error here, so it passes.
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    # Each code point is looked up once: a data set has millions of characters, but few different
    # ones.
    occurs = np.zeros(UNICODE_SIZE, bool)
    occurs[codes] = True
    blank = np.zeros(UNICODE_SIZE, bool)
    for code in np.flatnonzero(occurs).tolist():
        blank[code] = is_blank(chr(code))
    return ~blank[codes]


def encode_questions(
    examples: Sequence[QuestionExample],
    tokenizer: Tokenizer,
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    targets: bool,
    name: str,
) -> EncodedQuestions:
    """Return [CLS] question [SEP] window [SEP] for each window, as in the original `run_squad.py`.

    The special tokens are those of the tokenizer's layout for a pair.

    A question keeps its first `max_query_length` pieces. A window fills the rest of the row. The
    next window begins min(`doc_stride`, length of a full window) pieces later. The window that
    reaches the end of the paragraph is the last one. A paragraph without pieces has one window.

    With `targets` the result has `start_positions` and `end_positions`, int32 [items]. They are the
    positions in the row of the first and the last piece of the first answer. Both are 0, the
    position of [CLS], if the question has no answer or the window does not contain the whole
    answer. Both are `UNKNOWN` if the question has answers, but none that is at its start and has a
    piece: what the model should predict is not known then.

    Raises `UserError`, which names the question, if `max_seq_length` leaves no space for the
    paragraph, or if `targets` is true and the answers are not known.
    """
    # A paragraph of SQuAD has several questions, and is tokenized once.
    paragraph_numbers: dict[str, int] = {}
    for example in examples:
        paragraph_numbers.setdefault(example.context, len(paragraph_numbers))
    paragraph = np.array([paragraph_numbers[example.context] for example in examples], np.int64)
    texts = tokenized(list(paragraph_numbers), tokenizer)
    questions = [example.question for example in examples]
    question_ids, question_offsets = tokenizer.encode_batch(questions)
    kept = np.minimum(np.diff(question_offsets), max_query_length)
    layout = tokenizer.layout
    room = max_seq_length - kept - layout.pair_specials
    _check_room(examples, kept, room, max_seq_length, name)
    cut = _cut(np.diff(texts.offsets)[paragraph], room, doc_stride)
    first = texts.offsets[paragraph[cut.example]] + cut.begin
    kept_here, question_begins = kept[cut.example], question_offsets[cut.example]
    rows = layout.rows(
        Texts(question_ids, question_begins, kept_here), Texts(texts.ids, first, cut.length)
    )
    window_begins = layout.text_begins(kept_here)
    positions = {}
    if targets:
        start_pieces, end_pieces, is_lost = _answer_pieces(examples, paragraph, texts, name)
        start, end = start_pieces[cut.example], end_pieces[cut.example]
        is_inside = (start >= first) & (end < first + cut.length)
        elsewhere = np.where(is_lost[cut.example], UNKNOWN, 0)
        start_positions = np.where(is_inside, window_begins + start - first, elsewhere)
        end_positions = np.where(is_inside, window_begins + end - first, elsewhere)
        positions["start_positions"] = start_positions.astype(np.int32)
        positions["end_positions"] = end_positions.astype(np.int32)
    return EncodedQuestions(
        ids=rows.ids,
        offsets=rows.offsets,
        second_begins=rows.second_begins,
        example_indices=cut.example,
        targets=positions,
        window_begins=window_begins,
        window_lengths=cut.length,
        first=first,
        begins=texts.begins,
        ends=texts.ends,
    )


class _Windows(NamedTuple):
    """The windows of all questions; int64 [windows] each."""

    example: np.ndarray
    """Number of the question."""
    begin: np.ndarray
    """The first piece, numbered within its paragraph."""
    length: np.ndarray
    """Number of pieces in the window."""


def _cut(sizes: np.ndarray, room: np.ndarray, doc_stride: int) -> _Windows:
    """Divide paragraphs of `sizes` pieces into windows of up to `room` pieces.

    Both arrays are int64 [questions].
    """
    stride = np.minimum(doc_stride, room)
    # 1 + (the pieces after the first window, divided by the stride and rounded up).
    windows = np.where(sizes <= room, 1, 1 - (room - sizes) // stride)
    example = np.repeat(np.arange(len(sizes)), windows)
    number = np.arange(len(example)) - np.repeat(np.cumsum(windows) - windows, windows)
    begin = number * stride[example]
    return _Windows(example, begin, np.minimum(room[example], sizes[example] - begin))


def _check_room(
    examples: Sequence[QuestionExample],
    kept: np.ndarray,
    room: np.ndarray,
    max_seq_length: int,
    name: str,
) -> None:
    """Raise `UserError` with the longest question if it leaves no space for a paragraph."""
    if (room < 1).any():
        worst = int(np.argmin(room))
        raise mismatch(
            where=f"{name}: question {examples[worst].id}",
            found=f"{kept[worst]} pieces, max_seq_length {max_seq_length}",
            expected=f"{max_seq_length - room[worst] + 1} or more",
        )


def _answer_pieces(
    examples: Sequence[QuestionExample], paragraph: np.ndarray, texts: Paragraphs, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first and last piece of the answer to each question, and which ones are lost.

    The first two are int64 [questions]. The first answer that is at its start in the paragraph is
    used. Both values are -1 for a question without such an answer. A question is lost, bool
    [questions], if it has answers but none that can be used; the log says how many are.
    """
    spans = np.full((len(examples), 2), -1, np.int64)
    for number, example in enumerate(examples):
        check(
            example.answers is not None,
            where=f"{name}: question {example.id}",
            found="no answers",
            expected="answers, or none at all",
        )
        spans[number] = _first_span(example)
    # Within a paragraph the begins and ends of pieces ascend. Each paragraph is shifted by more
    # than the longest one's length, so that they ascend over all paragraphs.
    wide = max((len(example.context) for example in examples), default=0) + 1
    shift = np.repeat(np.arange(len(texts.offsets) - 1), np.diff(texts.offsets)) * wide
    # `right`: a piece that ends where the answer begins has none of its characters.
    start = np.searchsorted(texts.ends + shift, spans[:, 0] + paragraph * wide, side="right")
    end = np.searchsorted(texts.begins + shift, spans[:, 1] + paragraph * wide, side="left") - 1
    is_there = (spans[:, 0] >= 0) & (start <= end)
    has_answers = np.array([bool(example.answers) for example in examples], bool)
    is_lost = has_answers & ~is_there
    if is_lost.any():
        log.warning(
            "%s: questions whose answer is not where it says, or has no piece: %d;"
            " they are left out of the loss",
            name,
            int(is_lost.sum()),
        )
    return np.where(is_there, start, -1), np.where(is_there, end, -1), is_lost


def _first_span(example: QuestionExample) -> tuple[int, int]:
    """Return the character range of the first answer that is at its start; (-1, -1) without one."""
    for text, begin in example.answers or ():
        if text and begin >= 0 and example.context.startswith(text, begin):
            return begin, begin + len(text)
    return -1, -1
