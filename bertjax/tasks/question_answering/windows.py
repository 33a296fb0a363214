"""Questions and the windows of their paragraphs as rows of ids, with the characters that each piece
stands for.
"""

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.task import EncodedExamples

SPECIAL = 3  # [CLS] question [SEP] window [SEP]

log = logging.getLogger("bertjax")


@dataclass(frozen=True, kw_only=True)
class EncodedQuestions(EncodedExamples):
    """`Rows` and what an answer's text is cut by: a piece P of row r is at the place `second[r] + P
    - first[r]`.

    The paragraphs' pieces are counted through, each paragraph once, however many questions it has.
    """

    first: np.ndarray
    """int64 [items], the first piece of each row's window."""
    begins: np.ndarray
    """int32 [pieces], the character of its paragraph that each piece begins at."""
    ends: np.ndarray
    """int32 [pieces], the character after its last; equal to `begins` where the piece stands for
    white space.
    """


@dataclass(frozen=True)
class Paragraphs:
    """The pieces of paragraphs, one paragraph after another."""

    ids: np.ndarray
    """int32 [pieces]."""
    offsets: np.ndarray
    """int64 [paragraphs + 1], where each begins in the other arrays."""
    begins: np.ndarray
    ends: np.ndarray
    """int32 [pieces] each, as in `SpanRows`."""


def tokenized(texts: Sequence[str], tokenizer: Tokenizer) -> Paragraphs:
    """The pieces of each text.

    A piece ends where the next one begins that begins further on, but for the white space and
    control characters before that. So accents that are characters of their own go with their
    letter, though the tokenizer drops them, and of several pieces of one character each has it
    whole.
    """
    ids, offsets = tokenizer.encode_batch(texts)
    rows = tokenizer.encode_begins(texts)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    if not np.array_equal(sizes, np.diff(offsets)):
        raise ValueError("encode_begins has other tokens than encode_batch")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = np.concatenate(
        [[0], np.cumsum(lengths)]
    )  # of each text, all texts' characters counted through
    base = np.repeat(starts[:-1], sizes)
    begins = np.maximum.accumulate(
        np.fromiter(chain.from_iterable(rows), np.int64, int(offsets[-1])) + base
    )
    ends = _next_larger(begins, np.repeat(starts[1:], sizes))
    ink = _ink(texts, int(starts[-1]))
    places = np.arange(len(ink))
    # After the last and at the next character that is seen, of each place; `begins` stop at `ends`.
    after_ink = np.concatenate([[0], np.maximum.accumulate(np.where(ink, places + 1, 0))])
    at_ink = np.minimum.accumulate(np.where(ink, places, len(ink))[::-1])[::-1]
    begins = np.minimum(np.concatenate([at_ink, [len(ink)]])[begins], ends)
    ends = np.maximum(after_ink[ends], begins)
    return Paragraphs(
        ids, offsets, (begins - base).astype(np.int32), (ends - base).astype(np.int32)
    )


def _next_larger(begins: np.ndarray, text_ends: np.ndarray) -> np.ndarray:
    """The next larger of each of `begins`, which ascend, at most its text's end; int64."""
    last = len(begins)
    follows = np.append(np.diff(begins) > 0, True)[:last]
    following = np.minimum.accumulate(np.where(follows, np.arange(1, last + 1), last)[::-1])[::-1]
    return np.minimum(np.append(begins, np.iinfo(np.int64).max)[following], text_ends)


def _ink(texts: Sequence[str], size: int) -> np.ndarray:
    """Whether each character of all texts is neither white space nor a control or format character;
    bool [size].
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    occurs = np.zeros(0x110000, bool)
    occurs[codes] = True
    blank = np.zeros(0x110000, bool)
    for code in np.flatnonzero(occurs).tolist():
        blank[code] = chr(code).isspace() or unicodedata.category(chr(code)) in ("Cc", "Cf")
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
    """[CLS] question [SEP] window [SEP] for each window of each paragraph, as the original
    `run_squad.py` cuts them.

    A question keeps its first `max_query_length` pieces. A window has as many pieces as the row has
    room for, and the next one begins `doc_stride` pieces after it, or after its end if that is
    before. The first window that reaches the end is the last; a paragraph without pieces has one
    window. With `targets`: `start_positions` and `end_positions` [items] int32, the places in the
    row of the first and last piece that the first answer has a character of; 0, the [CLS], where
    there is no answer or not all of it is in the window. Raises `UserError` naming the question
    where `max_seq_length` leaves it no room, or it has no answers for `targets`.
    """
    numbers: dict[str, int] = {}
    paragraph = np.array([numbers.setdefault(e.context, len(numbers)) for e in examples], np.int64)
    texts = tokenized(list(numbers), tokenizer)
    question_ids, question_begins = tokenizer.encode_batch(
        [example.question for example in examples]
    )
    kept = np.minimum(np.diff(question_begins), max_query_length)
    room = max_seq_length - kept - SPECIAL
    if (room < 1).any():
        worst = int(np.argmin(room))
        where, least = f"{name}: question {examples[worst].id}", kept[worst] + SPECIAL + 1
        raise mismatch(
            where=where,
            found=f"{kept[worst]} pieces, max_seq_length {max_seq_length}",
            expected=f"{least} or more",
        )
    sizes = np.diff(texts.offsets)[paragraph]
    stride = np.minimum(doc_stride, room)
    windows = np.where(sizes <= room, 1, 1 - (room - sizes) // stride)  # rounded up

    example = np.repeat(np.arange(len(examples)), windows)
    number = np.arange(len(example)) - np.repeat(np.cumsum(windows) - windows, windows)
    begin = number * stride[example]
    length = np.minimum(room[example], sizes[example] - begin)
    first = texts.offsets[paragraph[example]] + begin
    second = kept[example] + 2
    offsets = np.concatenate([[0], np.cumsum(second + length + 1)])
    ids = np.full(offsets[-1], tokenizer.sep_id, np.int32)
    ids[offsets[:-1]] = tokenizer.cls_id
    asked = question_begins[example]
    ids[ranges(offsets[:-1] + 1, offsets[:-1] + second - 1)] = question_ids[
        ranges(asked, asked + kept[example])
    ]
    ids[ranges(offsets[:-1] + second, offsets[1:] - 1)] = texts.ids[ranges(first, first + length)]
    positions = {}
    if targets:
        start, end = (
            places[example] for places in _answer_pieces(examples, paragraph, texts, name)
        )
        inside = (start >= first) & (end < first + length)
        for key, piece in (("start_positions", start), ("end_positions", end)):
            positions[key] = np.where(inside, second + piece - first, 0).astype(np.int32)
    return EncodedQuestions(
        ids=ids,
        offsets=offsets,
        second=second.astype(np.int32),
        example=example,
        targets=positions,
        first=first,
        begins=texts.begins,
        ends=texts.ends,
    )


def _answer_pieces(
    examples: Sequence[QuestionExample], paragraph: np.ndarray, texts: Paragraphs, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last piece of each question's first answer that is where it says; -1 where
    there is none.
    """
    spans = np.full((len(examples), 2), -1, np.int64)
    for number, example in enumerate(examples):
        check(
            example.answers is not None,
            where=f"{name}: question {example.id}",
            found="no answers",
            expected="answers, or none at all",
        )
        for text, begin in example.answers or ():
            if text and begin >= 0 and example.context.startswith(text, begin):
                spans[number] = begin, begin + len(text)
                break
    # Pieces ascend within a paragraph: shifted by more than any has characters, they do over all.
    wide = max((len(example.context) for example in examples), default=0) + 1
    shift = np.repeat(np.arange(len(texts.offsets) - 1), np.diff(texts.offsets)) * wide
    start = np.searchsorted(texts.ends + shift, spans[:, 0] + paragraph * wide, side="right")
    end = np.searchsorted(texts.begins + shift, spans[:, 1] + paragraph * wide, side="left") - 1
    there = (spans[:, 0] >= 0) & (start <= end)
    lost = sum(bool(example.answers) for example in examples) - int(there.sum())
    if lost:
        log.warning(
            "%s: questions whose answer is not where it says, or has no piece: %d; taken for none",
            name,
            lost,
        )
    return np.where(there, start, -1), np.where(there, end, -1)
