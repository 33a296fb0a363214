"""The inputs, `Sequences` of one or two segments, made of documents for a sentence objective."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from bertjax.config import DataConfig
from bertjax.data.preparation.documents import Documents, offsets_of

SPECIALS = 3  # [CLS] A [SEP] B [SEP]
MIN_TARGET_LENGTH = 2
"""Tokens of the shortest target length, as in the original BERT script."""
# Another number would cut inputs elsewhere: `_truncated` draws what comes after the last block.
RANDOM_BLOCK = 8192
"""Random numbers drawn by one call of the generator; one call for each number is far slower."""


class Sequences(NamedTuple):
    """Inputs as spans of a token array: A is `tokens[a_begin:a_begin + a_length]`, B likewise.

    All int64 `[n]`.
    """

    a_begin: np.ndarray
    a_length: np.ndarray
    b_begin: np.ndarray
    b_length: np.ndarray
    """0 where there is no B; then there is no [SEP] after it either."""
    label: np.ndarray
    """1 for a negative, else 0: with `next_sentence`, B is from another document; with
    `sentence_order`, B stands before A in the text.
    """

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each input, special tokens included; int64 `[n]`."""
        return self.a_length + self.b_length + np.where(self.b_length > 0, SPECIALS, SPECIALS - 1)


InputFields = tuple[int, int, int, int, int]
"""One input: its value of each field of `Sequences`, in their order.

A plain tuple: with a NamedTuple `make_sequences` takes 15 to 40 % longer.
"""


def make_sequences(documents: Documents, config: DataConfig, rng: np.random.Generator) -> Sequences:
    """Make the inputs of one pass over the documents, by `config.sentence_objective`.

    `next_sentence`, as in section 3.1 and appendix A.2 of arXiv 1810.04805: sentences are gathered
    up to a target length and split at a random sentence into A and B. In half of the cases, and
    always if there is only one sentence, B is taken from a random position in another document
    instead. The sentences after A, which B replaces, then begin the next input. If there is no
    other document, B is always the text after A, and a single sentence gives no input.

    `sentence_order` (arXiv 1909.11942, section 3.1): A and B follow one another, and are swapped
    half of the time; a single sentence is split at a random token.

    `none` (arXiv 1907.11692, section 4.2): as many sentences as fit, no B; with `cross_documents`
    the documents are one text (see `joined`).

    A sentence longer than a row counts as several. An input that is still longer than a row is
    truncated, on either end at random.
    """
    documents = _split_long_sentences(documents, config)
    make_inputs = _MAKERS[config.sentence_objective]
    # An endless iterator of random numbers in [0, 1).
    uniform = chain.from_iterable(_random_blocks(rng))
    inputs = make_inputs(documents, config, uniform)
    # One flat array is filled input by input, and its columns are the fields.
    flat = np.fromiter(chain.from_iterable(inputs), np.int64)
    columns = flat.reshape(-1, len(Sequences._fields)).T
    sequences = Sequences(*columns)
    return _truncated(sequences, config.max_seq_length - SPECIALS, rng)


def joined(documents: Documents, sep_id: int) -> Documents:
    """Return the documents as one, each but the last with `sep_id` after it."""
    # Where each document but the last ends, as an index into `documents.sentences`.
    ends = documents.documents[1:-1]
    tokens = np.insert(documents.tokens, documents.sentences[ends], np.int32(sep_id))
    # A separator belongs to the sentence before it, so each bound moves by the separators up to it.
    added = np.zeros(len(documents.sentences), np.int64)
    added[ends] = 1
    sentences = documents.sentences + np.cumsum(added)
    # Nothing asks for the digest of the joined text; one stands there for the one document.
    bounds = np.array([0, len(documents.sentences) - 1])
    digest = documents.digests[:1]  # one for the one document; nothing reads it from here on
    return Documents(tokens, sentences, bounds, digest)


def _random_blocks(rng: np.random.Generator) -> Iterator[list[float]]:
    """Yield lists of numbers in [0, 1), without end."""
    while True:
        yield rng.random(RANDOM_BLOCK).tolist()


def _split_long_sentences(documents: Documents, config: DataConfig) -> Documents:
    """Divide each sentence that is too long for a row into as few equal parts as fit into rows."""
    specials = SPECIALS if config.sentence_objective != "none" else SPECIALS - 1
    max_length = config.max_seq_length - specials
    lengths = np.diff(documents.sentences)
    if not len(lengths) or lengths.max() <= max_length:
        return documents
    part_counts = (lengths + max_length - 1) // max_length  # rounded up
    first_part = offsets_of(part_counts)
    # One element for each part: its index within its sentence; then, repeated for all parts of a
    # sentence, the begin and the length of the sentence, and the number of its parts.
    index = np.arange(part_counts.sum()) - np.repeat(first_part[:-1], part_counts)
    begin = np.repeat(documents.sentences[:-1], part_counts)
    length = np.repeat(lengths, part_counts)
    count = np.repeat(part_counts, part_counts)
    part_begins = begin + length * index // count
    # In integers: the parts differ by one token at most, and none is a short rest.
    sentences = np.concatenate([part_begins, documents.sentences[-1:]])
    # The parts are the new sentences: a document begins at the first part of its first sentence.
    bounds = first_part[documents.documents]
    return Documents(documents.tokens, sentences, bounds, documents.digests)


def _next_sentence(
    documents: Documents, config: DataConfig, uniform: Iterator[float]
) -> Iterator[InputFields]:
    # Lists: taking one element of a numpy array costs several times as much.
    begins, bounds = documents.sentences.tolist(), documents.documents.tolist()
    max_length = config.max_seq_length - SPECIALS
    others = len(documents) - 1
    for document, (begin, end) in enumerate(pairwise(bounds)):
        first = begin
        while first < end:
            # The original draws the target once a document (`create_instances_from_document` in
            # create_pretraining_data.py); here each input has its own.
            target = _target_length(config, max_length, uniform)
            start = begins[first]
            # Sentences `first` to `after` - 1 have `target` tokens or more, if the document has so
            # many: else `after` is its `end`.
            after = bisect_left(begins, start + target, first + 1, end)
            # A and B each keep a sentence where there are two, as by the original's `a_end`.
            # A is up to sentence `split`: one of `first` + 1 to `after` - 1, or `first` + 1 if
            # there is only one sentence.
            split = first + 1 + int(next(uniform) * (after - first - 1))
            a_length = begins[split] - start
            # The order matters: the number is drawn even if there are no others.
            if (after - first == 1 or next(uniform) < 0.5) and others > 0:
                # One of the other documents, with equal chances.
                # The original tries ten times to draw another one, and may then keep the document
                # itself.
                other = int(next(uniform) * others)
                if other >= document:
                    other += 1
                low, high = bounds[other], bounds[other + 1]
                b_first = low + int(next(uniform) * (high - low))
                b_start = begins[b_first]
                # One sentence at least, as in the original, even where A alone has reached the
                # target.
                b_target = max(1, target - a_length)  # a single sentence may be over the target
                b_after = bisect_left(begins, b_start + b_target, b_first + 1, high)
                b_length = begins[b_after] - b_start
                # B replaced the sentences from `split` on: they begin the next input.
                first = split
                yield start, a_length, b_start, b_length, 1
            elif after - first > 1:
                b_start = begins[split]
                b_length = begins[after] - b_start
                first = after
                yield start, a_length, b_start, b_length, 0
            else:  # a single sentence without another document gives no input
                first = after


def _sentence_order(
    documents: Documents, config: DataConfig, uniform: Iterator[float]
) -> Iterator[InputFields]:
    begins, bounds = documents.sentences.tolist(), documents.documents.tolist()
    max_length = config.max_seq_length - SPECIALS
    for first, end in pairwise(bounds):
        while first < end:
            target = _target_length(config, max_length, uniform)
            after = bisect_left(begins, begins[first] + target, first + 1, end)
            start, stop = begins[first], begins[after]
            if after - first > 1:
                middle = begins[first + 1 + int(next(uniform) * (after - first - 1))]
            else:
                middle = start + 1 + int(next(uniform) * (stop - start - 1))
            first = after
            if stop - start < 2:  # one token cannot be split
                continue
            if next(uniform) < 0.5:
                yield start, middle - start, middle, stop - middle, 0
            else:
                yield middle, stop - middle, start, middle - start, 1


def _full_sentences(
    documents: Documents, config: DataConfig, uniform: Iterator[float]
) -> Iterator[InputFields]:
    begins, bounds = documents.sentences.tolist(), documents.documents.tolist()
    max_length = config.max_seq_length - (SPECIALS - 1)
    for first, end in pairwise(bounds):
        while first < end:
            # The search gives the first sentence bound at which the input is longer than
            # `max_length`, or `end` + 1. The input ends one bound earlier.
            # `first + 2`: one sentence is taken in any case, for none is longer than a row by now.
            after = bisect_left(begins, begins[first] + max_length + 1, first + 2, end + 1) - 1
            yield begins[first], begins[after] - begins[first], 0, 0, 0
            first = after


_MAKERS: dict[str, Callable[[Documents, DataConfig, Iterator[float]], Iterator[InputFields]]] = {
    "next_sentence": _next_sentence,
    "sentence_order": _sentence_order,
    "none": _full_sentences,
}


def _target_length(config: DataConfig, max_length: int, uniform: Iterator[float]) -> int:
    """Draw the target length of an input: mostly the longest, sometimes a shorter one.

    The short ones lessen the mismatch between pretraining and fine-tuning on short texts (the
    original script's `short_seq_prob`).
    """
    if next(uniform) >= config.short_seq_probability:
        return max_length
    return MIN_TARGET_LENGTH + int(next(uniform) * (max_length - MIN_TARGET_LENGTH + 1))


def _truncated(sequences: Sequences, max_length: int, rng: np.random.Generator) -> Sequences:
    """Cut the longer of A and B token by token until both fit, at the front or the back at random.

    As in the original script, each cut token is at the front with probability 1/2. The lengths
    alone decide how many tokens A and B lose, so all cuts are made at once: the number cut at the
    front is drawn from a binomial distribution.
    """
    a, b = sequences.a_length, sequences.b_length
    # An input without B fits by how it was made. It may have one token more, for it has one [SEP]
    # less.
    # Without B the inputs were made to fit already.
    fits = (a + b <= max_length) | (b == 0)
    # The longer of A and B is cut alone until both fit, or until both have the same length; from
    # then on they are cut in turn. So A keeps all or what B leaves of `max_length`, at least half.
    half = (max_length + 1) // 2
    a_kept = np.where(fits, a, np.minimum(a, np.maximum(max_length - b, half)))
    # On a tie the original's `truncate_seq_pair` cuts B, so A keeps the larger half.
    b_kept = np.where(fits, b, max_length - a_kept)
    a_cut_at_front = rng.binomial(a - a_kept, 0.5)
    b_cut_at_front = rng.binomial(b - b_kept, 0.5)
    return Sequences(
        a_begin=sequences.a_begin + a_cut_at_front,
        a_length=a_kept,
        b_begin=sequences.b_begin + b_cut_at_front,
        b_length=b_kept,
        label=sequences.label,
    )
