"""Inputs of one or two segments from documents, for each sentence objective."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from bertjax.config import DataConfig
from bertjax.data.preparation.documents import Documents

SPECIALS = 3  # [CLS] A [SEP] B [SEP]
SHORTEST_TARGET = 2


class Sequences(NamedTuple):
    """Inputs as places in a token array: A is `tokens[a_begin:a_begin + a_length]`, B likewise."""

    a_begin: np.ndarray
    a_length: np.ndarray
    b_begin: np.ndarray
    b_length: np.ndarray
    """All int64 `[n]`; `b_length` 0 where there is no B, and no [SEP] after it."""
    label: np.ndarray
    """1 where B comes from elsewhere, or stands before A in the text; else 0; int64 `[n]`."""

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each input, special tokens included; int64 `[n]`."""
        return self.a_length + self.b_length + np.where(self.b_length > 0, SPECIALS, SPECIALS - 1)


def make_sequences(documents: Documents, config: DataConfig, rng: np.random.Generator) -> Sequences:
    """One pass over the documents, by `config.sentence_objective`.

    `next_sentence`, as in section 3.1 and appendix A.2 of arXiv 1810.04805: sentences are gathered
    up to a target length and split at a random sentence into A and B; half of the time, and where
    there is one sentence only, B is taken from a random place in another document instead, and the
    sentences it displaced begin the next input. Where there is no other document, B is always the
    true next, and a lone sentence makes no input.

    `sentence_order` (arXiv 1909.11942, section 3.1): A and B follow one another, and are swapped
    half of the time; a lone sentence is split at a random token.

    `none` (arXiv 1907.11692, section 4.2): as many sentences as fit, no B; with `cross_documents`
    the documents are one text (see `joined`).

    A sentence longer than a row counts as several. What is still longer than a row is cut, on
    either end at random.
    """
    documents = _bounded(documents, config)
    make = {"next_sentence": _next_sentence, "sentence_order": _sentence_order, "none": _full}
    rows = chain.from_iterable(make[config.sentence_objective](documents, config, _uniform(rng)))
    sequences = Sequences(*np.fromiter(rows, np.int64).reshape(-1, 5).T)
    return _truncated(sequences, config.max_seq_length - SPECIALS, rng)


def joined(documents: Documents, sep_id: int) -> Documents:
    """The documents as one, each but the last with `sep_id` after it."""
    ends = documents.sentences[documents.documents[1:-1]]
    tokens = np.insert(documents.tokens, ends, np.int32(sep_id))
    # A separator belongs to the sentence before it.
    shift = np.zeros(len(documents.sentences), np.int64)
    shift[documents.documents[1:-1]] = 1
    whole = np.array([0, len(documents.sentences) - 1])
    return Documents(tokens, documents.sentences + np.cumsum(shift), whole, documents.digests[:1])


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1), drawn a block at a time."""
    return chain.from_iterable(iter(lambda: rng.random(8192).tolist(), None))


def _bounded(documents: Documents, config: DataConfig) -> Documents:
    """Sentences that no row holds in equal parts that one does."""
    longest = config.max_seq_length - (
        SPECIALS if config.sentence_objective != "none" else SPECIALS - 1
    )
    lengths = np.diff(documents.sentences)
    if not len(lengths) or lengths.max() <= longest:
        return documents
    parts = -(-lengths // longest)
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    many = np.repeat(parts, parts)
    sentences = (
        np.repeat(documents.sentences[:-1], parts) + np.repeat(lengths, parts) * number // many
    )
    before = np.concatenate([[0], np.cumsum(parts)])
    sentences = np.concatenate([sentences, documents.sentences[-1:]])
    return Documents(documents.tokens, sentences, before[documents.documents], documents.digests)


Row = tuple[int, int, int, int, int]


def _next_sentence(
    documents: Documents, config: DataConfig, uniform: Iterator[float]
) -> Iterator[Row]:
    ends, bounds, longest = (
        documents.sentences.tolist(),
        documents.documents.tolist(),
        config.max_seq_length - SPECIALS,
    )

    others = len(documents) - 1
    for document, (begin, end) in enumerate(pairwise(bounds)):
        first = begin
        while first < end:
            target = _target(config, longest, uniform)
            start = ends[first]
            # The sentence before which those from `first` come to `target` tokens.
            after = bisect_left(ends, start + target, first + 1, end)
            split = first + 1 + int(next(uniform) * (after - first - 1))
            if (after - first == 1 or next(uniform) < 0.5) and others:
                other = int(next(uniform) * others)
                other += other >= document
                low, high = bounds[other], bounds[other + 1]
                b_first = low + int(next(uniform) * (high - low))
                b_start = ends[b_first]
                wanted = max(1, target - ends[split] + start)
                b_after = bisect_left(ends, b_start + wanted, b_first + 1, high)
                first = split
                yield start, ends[split] - start, b_start, ends[b_after] - b_start, 1
            elif after - first > 1:
                first = after
                yield start, ends[split] - start, ends[split], ends[after] - ends[split], 0
            else:
                first = after


def _sentence_order(
    documents: Documents, config: DataConfig, uniform: Iterator[float]
) -> Iterator[Row]:
    ends, bounds, longest = (
        documents.sentences.tolist(),
        documents.documents.tolist(),
        config.max_seq_length - SPECIALS,
    )
    for first, end in pairwise(bounds):
        while first < end:
            target = _target(config, longest, uniform)
            after = bisect_left(ends, ends[first] + target, first + 1, end)
            start, stop = ends[first], ends[after]
            if after - first > 1:
                middle = ends[first + 1 + int(next(uniform) * (after - first - 1))]
            else:
                middle = start + 1 + int(next(uniform) * (stop - start - 1))
            first = after
            if stop - start < 2:
                continue
            if next(uniform) < 0.5:
                yield start, middle - start, middle, stop - middle, 0
            else:
                yield middle, stop - middle, start, middle - start, 1


def _full(documents: Documents, config: DataConfig, uniform: Iterator[float]) -> Iterator[Row]:
    ends, longest = documents.sentences.tolist(), config.max_seq_length - (SPECIALS - 1)
    for first, end in pairwise(documents.documents.tolist()):
        while first < end:
            after = bisect_left(ends, ends[first] + longest + 1, first + 2, end + 1) - 1
            yield ends[first], ends[after] - ends[first], 0, 0, 0
            first = after


def _target(config: DataConfig, longest: int, uniform: Iterator[float]) -> int:
    if next(uniform) >= config.short_seq_probability:
        return longest
    return SHORTEST_TARGET + int(next(uniform) * (longest - SHORTEST_TARGET + 1))


def _truncated(sequences: Sequences, longest: int, rng: np.random.Generator) -> Sequences:
    """Cut the longer side token by token until both fit, each cut on the front or the back at
    random.

    How many are cut of each side is certain; how many of those on the front is binomial.
    """
    a, b = sequences.a_length, sequences.b_length
    fits = (a + b <= longest) | (b == 0)
    a_kept = np.where(fits, a, np.minimum(a, np.maximum(longest - b, (longest + 1) // 2)))
    b_kept = np.where(fits, b, longest - a_kept)
    return Sequences(
        sequences.a_begin + rng.binomial(a - a_kept, 0.5),
        a_kept,
        sequences.b_begin + rng.binomial(b - b_kept, 0.5),
        b_kept,
        sequences.label,
    )
