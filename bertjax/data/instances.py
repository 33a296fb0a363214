"""Sentence pairs from documents, as in section 3.1 and appendix A.2 of arXiv 1810.04805."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bertjax.config import DataConfig
from bertjax.data.documents import Documents

SPECIALS = 3  # [CLS] A [SEP] B [SEP]
SHORTEST_TARGET = 2


class Spans(NamedTuple):
    """Instances as places in a token array: A is `tokens[a_begin:a_begin + a_length]`, B likewise."""

    a_begin: np.ndarray
    a_length: np.ndarray
    b_begin: np.ndarray
    b_length: np.ndarray
    is_random_next: np.ndarray
    """All `[n]`: int64, and bool for whether B comes from another document."""


def make_instances(documents: Documents, config: DataConfig, rng: np.random.Generator) -> Spans:
    """One pass over the documents.

    Sentences are gathered up to a target length and split at a random sentence into A and B; half
    of the time, and where there is one sentence only, B is taken from a random place in another
    document instead, and the sentences it displaced begin the next instance. Where there is no
    other document, B is always the true next, and a lone sentence makes no instance. What is
    longer than `max_seq_length` less the three special tokens is cut, on either end at random.
    """
    rows = list(_pairs(documents, config, _uniform(rng)))
    a_begin, a_length, b_begin, b_length, is_random_next = np.array(rows, np.int64).reshape(-1, 5).T
    spans = Spans(a_begin, a_length, b_begin, b_length, is_random_next.astype(bool))
    return _truncated(spans, config.max_seq_length - SPECIALS, rng)


def layout(
    spans: Spans, tokens: np.ndarray, cls_id: int, sep_id: int, pad_id: int, max_seq_length: int
) -> dict[str, np.ndarray]:
    """`input_ids`, `input_mask`, `segment_ids`, int32 `[n, max_seq_length]`, and `next_sentence_labels` `[n, 1]`."""
    column = np.arange(max_seq_length)[None, :]
    first_sep = spans.a_length[:, None] + 1
    last_sep = first_sep + spans.b_length[:, None] + 1
    real, in_b = column <= last_sep, column > first_sep
    place = column + np.where(in_b, spans.b_begin[:, None] - first_sep - 1, spans.a_begin[:, None] - 1)
    # The three special tokens and the padding read a neighbour, or past the end: they are put right below.
    ids = np.where(real, tokens.take(place, mode="clip"), np.int32(pad_id))
    ids[:, 0] = cls_id
    np.put_along_axis(ids, first_sep, sep_id, 1)
    np.put_along_axis(ids, last_sep, sep_id, 1)
    return {
        "input_ids": ids,
        "input_mask": real.astype(np.int32),
        "segment_ids": (real & in_b).astype(np.int32),
        "next_sentence_labels": spans.is_random_next[:, None].astype(np.int32),
    }


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1), drawn a block at a time."""
    while True:
        yield from rng.random(8192).tolist()


def _pairs(documents: Documents, config: DataConfig, uniform: Iterator[float]) -> Iterator[tuple[int, ...]]:
    """(a_begin, a_length, b_begin, b_length, is_random_next) of each instance, not truncated."""
    ends, bounds, longest = documents.sentences.tolist(), documents.documents.tolist(), config.max_seq_length - SPECIALS

    def reach(first: int, last: int, length: int) -> int:
        """The sentence before which those from `first` come to `length` tokens, `last` at most."""
        return min(bisect_left(ends, ends[first] + length, first + 1, last), last)

    for document, (begin, end) in enumerate(pairwise(bounds)):
        first = begin
        while first < end:
            target = longest
            if next(uniform) < config.short_seq_probability:
                target = SHORTEST_TARGET + int(next(uniform) * (longest - SHORTEST_TARGET + 1))
            after = reach(first, end, target)
            split = first + 1 + int(next(uniform) * (after - first - 1))
            random_next = after - first == 1 or next(uniform) < 0.5
            if random_next and len(documents) > 1:
                other = int(next(uniform) * (len(documents) - 1))
                other += other >= document
                low, high = bounds[other], bounds[other + 1]
                b_first = low + int(next(uniform) * (high - low))
                b_after = reach(b_first, high, max(1, target - (ends[split] - ends[first])))
                after = split
            elif after - first > 1:
                random_next, b_first, b_after = False, split, after
            else:
                first = after
                continue
            yield (
                ends[first],
                ends[split] - ends[first],
                ends[b_first],
                ends[b_after] - ends[b_first],
                random_next,
            )
            first = after


def _truncated(spans: Spans, longest: int, rng: np.random.Generator) -> Spans:
    """Cut the longer side token by token until both fit, each cut on the front or the back at random.

    How many are cut of each side is certain; how many of those on the front is binomial.
    """
    a, b = spans.a_length, spans.b_length
    fits = a + b <= longest
    a_kept = np.where(fits, a, np.minimum(a, np.maximum(longest - b, (longest + 1) // 2)))
    b_kept = np.where(fits, b, longest - a_kept)
    return Spans(
        spans.a_begin + rng.binomial(a - a_kept, 0.5),
        a_kept,
        spans.b_begin + rng.binomial(b - b_kept, 0.5),
        b_kept,
        spans.is_random_next,
    )
