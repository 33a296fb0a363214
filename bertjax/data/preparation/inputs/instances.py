"""The inputs, `Sequences` of one or two segments, made of documents for a sentence objective."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from bertjax.config import DataConfig
from bertjax.data.preparation.documents import Documents
from bertjax.data.records.pair_counts import (
    PAIRS,
    PAIRS_WITH_NEXT,
    PAIRS_WITHOUT_NEXT,
    RANDOM_NEXT,
    SWAPPED,
    UNMADE_PAIRS,
)
from bertjax.data.row_layout import RowLayout
from bertjax.errors import check

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
    """0 where there is no B; then there are no special tokens of a pair either."""
    label: np.ndarray
    """1 for a negative, else 0: with `next_sentence`, B is from another document; with
    `sentence_order`, B stands before A in the text.
    """

    def lengths(self, layout: RowLayout) -> np.ndarray:
        """Return the number of ids of each input, special tokens included; int64 `[n]`."""
        return self.a_length + self.b_length + layout.specials(self.b_length > 0)


InputFields = tuple[int, int, int, int, int]
"""One input: its value of each field of `Sequences`, in their order.

A plain tuple: with a NamedTuple `make_sequences` takes 15 to 40 % longer. `_next_sentence` says
what it has in the fields of a random B.
"""
InputMaker = Callable[[list[int], list[int], int, float, Iterator[float]], Iterator[InputFields]]
"""`make(begins, bounds, max_length, short, uniform)` yields the inputs of some documents.

`begins` are the positions of their sentences in the tokens, and the end. Document `d` has the
sentences `bounds[d]` to `bounds[d + 1] - 1` of these. `max_length` is the number of tokens for
which a row has room, and `short` is `short_seq_probability`.
"""


def make_sequences(
    documents: Documents,
    config: DataConfig,
    layout: RowLayout,
    rng: np.random.Generator,
    own: range | None = None,
    counts: Counter[str] | None = None,
) -> Sequences:
    """Make the inputs of one pass over the documents, by `config.sentence_objective`.

    `own` are the numbers of consecutive documents to make inputs of; None: all. A random B may come
    from any document. No sentence may be longer than `max_sentence_length` (see
    `split_long_sentences`). `counts` gets the numbers of pairs by kind, under the names in
    `pair_counts`.

    `next_sentence`, as in section 3.1 and appendix A.2 of arXiv 1810.04805: sentences are gathered
    up to a target length, two of them at least, and split at a random sentence into A and B. In
    half of the cases, and always where A is the last sentence of its document, B is taken from a
    random position in another document instead. The sentences after A, which B replaces, then
    begin the next input. Needs two documents or more.

    `sentence_order` (arXiv 1909.11942, section 3.1): A and B follow one another, and are swapped
    half of the time; a single sentence is split at a random token.

    `none` (arXiv 1907.11692, section 4.2): as many sentences as fit, no B; with `cross_documents`
    the documents are one text (see `documents.joined`).

    An input that is longer than a row is truncated, on either end at random.
    """
    own = range(len(documents)) if own is None else own
    counts = Counter() if counts is None else counts
    make_inputs = _MAKERS[config.sentence_objective]
    # An endless iterator of random numbers in [0, 1).
    uniform = chain.from_iterable(_random_blocks(rng))
    max_length = max_sentence_length(config, layout)
    inputs = make_inputs(
        *_offsets(documents, own), max_length, config.short_seq_probability, uniform
    )
    # One flat array is filled input by input, and its columns are the fields.
    flat = np.fromiter(chain.from_iterable(inputs), np.int64)
    columns = flat.reshape(-1, len(Sequences._fields)).T
    sequences = Sequences(*columns)
    if config.sentence_objective == "next_sentence":
        sequences = _with_random_next(sequences, documents, own, rng, counts)
    elif config.sentence_objective == "sentence_order":
        sequences = _made(sequences, counts)
    return _truncated(sequences, max_length, rng)


def _random_blocks(rng: np.random.Generator) -> Iterator[list[float]]:
    """Yield lists of numbers in [0, 1), without end."""
    while True:
        yield rng.random(RANDOM_BLOCK).tolist()


def max_sentence_length(config: DataConfig, layout: RowLayout) -> int:
    """Return the number of tokens of the longest sentence that fits into a row."""
    if config.sentence_objective == "none":
        return config.max_seq_length - layout.single_specials
    return config.max_seq_length - layout.pair_specials


def check_can_make_pairs(config: DataConfig, layout: RowLayout) -> None:
    """Raise `UserError` where a sentence objective needs a separator that the tokenizer lacks."""
    check(
        config.sentence_objective == "none" or layout.between,
        where="data.sentence_objective",
        found=f"{config.sentence_objective}, and a tokenizer that puts no token between two texts",
        expected="none",
    )


def _offsets(documents: Documents, own: range) -> tuple[list[int], list[int]]:
    """Return `begins` and `bounds` of the documents `own`, as an `InputMaker` takes them."""
    bounds = documents.documents[own.start : own.stop + 1]
    first, last = bounds[0], bounds[-1]
    # Lists: taking one element of a numpy array costs several times as much.
    return documents.sentences[first : last + 1].tolist(), (bounds - first).tolist()


_FOLLOWS, _RANDOM, _ENDS_DOCUMENT = 0, 1, 2
"""Labels of `_next_sentence`. In the last two cases B is random; in the last one A has no next."""


def _next_sentence(
    begins: list[int], bounds: list[int], max_length: int, short: float, uniform: Iterator[float]
) -> Iterator[InputFields]:
    """Yield the inputs; where B is random, its fields are A's document and B's target length.

    Such a B is drawn for all inputs at once (`_with_random_next`), which is faster.
    """
    for document, (begin, end) in enumerate(pairwise(bounds)):
        first = begin
        while first < end:
            # The original draws the target once a document (`create_instances_from_document` in
            # create_pretraining_data.py); here each input has its own.
            target = _target_length(max_length, short, uniform)
            start = begins[first]
            # Sentences `first` to `after` - 1 have `target` tokens or more, if the document has so
            # many: else `after` is its `end`. They are two at least where the document has two. The
            # original takes one that reaches the target alone, and its B is always random, so that
            # a long A tells the label.
            after = min(bisect_left(begins, start + target, first + 2, end), end)
            # A ends before sentence `split`, one of `first` + 1 to `after` - 1: A and B each keep a
            # sentence, as by the original's `a_end`. Of a single sentence it is `first` + 1.
            split = first + 1 + int(next(uniform) * (after - first - 1))
            a_length = begins[split] - start
            if after - first == 1:
                first = after
                yield start, a_length, document, target - a_length, _ENDS_DOCUMENT
            elif next(uniform) < 0.5:
                # B replaced the sentences from `split` on: they begin the next input.
                first = split
                yield start, a_length, document, target - a_length, _RANDOM
            else:
                first = after
                b_start = begins[split]
                yield start, a_length, b_start, begins[after] - b_start, _FOLLOWS


def _with_random_next(
    sequences: Sequences,
    documents: Documents,
    own: range,
    rng: np.random.Generator,
    counts: Counter[str],
) -> Sequences:
    """Draw each random B that `_next_sentence` left open, and count the pairs.

    B begins at a random sentence of a random document other than A's, and has as many sentences as
    its target length takes: one at least, as in the original, even where A alone has reached it.
    """
    label = sequences.label
    is_random = label != _FOLLOWS
    a_document = own.start + sequences.b_begin[is_random]
    target = np.maximum(sequences.b_length[is_random], 1)
    others = len(documents) - 1
    if len(target) and not others:
        raise ValueError("next_sentence: found one document, expected two or more")
    # The original tries ten times to draw another document, and may then keep A's own.
    b_document = (rng.random(len(target)) * others).astype(np.int64)
    b_document += b_document >= a_document
    low, high = documents.documents[b_document], documents.documents[b_document + 1]
    b_first = low + (rng.random(len(target)) * (high - low)).astype(np.int64)
    b_start = documents.sentences[b_first]
    b_after = np.minimum(np.searchsorted(documents.sentences, b_start + target), high)
    b_begin, b_length = sequences.b_begin.copy(), sequences.b_length.copy()
    b_begin[is_random] = b_start
    b_length[is_random] = documents.sentences[b_after] - b_start
    ends_document = int((label == _ENDS_DOCUMENT).sum())
    counts[PAIRS_WITH_NEXT] += len(label) - ends_document
    counts[RANDOM_NEXT] += len(target) - ends_document
    counts[PAIRS_WITHOUT_NEXT] += ends_document
    return sequences._replace(b_begin=b_begin, b_length=b_length, label=is_random.astype(np.int64))


def _sentence_order(
    begins: list[int], bounds: list[int], max_length: int, short: float, uniform: Iterator[float]
) -> Iterator[InputFields]:
    """Yield the inputs; one whose A has no tokens cannot be made (see `_made`)."""
    for first, end in pairwise(bounds):
        while first < end:
            target = _target_length(max_length, short, uniform)
            after = bisect_left(begins, begins[first] + target, first + 1, end)
            start, stop = begins[first], begins[after]
            if after - first > 1:
                middle = begins[first + 1 + int(next(uniform) * (after - first - 1))]
            else:
                middle = start + 1 + int(next(uniform) * (stop - start - 1))
            first = after
            if stop - start < 2:  # one token cannot be split
                yield start, 0, start, 0, 0
            elif next(uniform) < 0.5:
                yield start, middle - start, middle, stop - middle, 0
            else:
                yield middle, stop - middle, start, middle - start, 1


def _made(sequences: Sequences, counts: Counter[str]) -> Sequences:
    """Return the pairs of `_sentence_order` that could be made, and count all."""
    made = sequences.a_length > 0
    counts[UNMADE_PAIRS] += int((~made).sum())
    counts[PAIRS] += int(made.sum())
    counts[SWAPPED] += int(sequences.label.sum())
    return Sequences(*(field[made] for field in sequences))


def _full_sentences(
    begins: list[int], bounds: list[int], max_length: int, short: float, uniform: Iterator[float]
) -> Iterator[InputFields]:
    for first, end in pairwise(bounds):
        while first < end:
            # The search gives the first sentence bound at which the input is longer than
            # `max_length`, or `end` + 1. The input ends one bound earlier.
            # `first + 2`: one sentence is taken in any case, for none is longer than a row by now.
            after = bisect_left(begins, begins[first] + max_length + 1, first + 2, end + 1) - 1
            yield begins[first], begins[after] - begins[first], 0, 0, 0
            first = after


_MAKERS: dict[str, InputMaker] = {
    "next_sentence": _next_sentence,
    "sentence_order": _sentence_order,
    "none": _full_sentences,
}


def _target_length(max_length: int, short: float, uniform: Iterator[float]) -> int:
    """Draw the target length of an input: mostly the longest, sometimes a shorter one.

    The short ones lessen the mismatch between pretraining and fine-tuning on short texts (the
    original script's `short_seq_prob`).
    """
    if next(uniform) >= short:
        return max_length
    return MIN_TARGET_LENGTH + int(next(uniform) * (max_length - MIN_TARGET_LENGTH + 1))


def _truncated(sequences: Sequences, max_length: int, rng: np.random.Generator) -> Sequences:
    """Cut the longer of A and B token by token until both fit, at the front or the back at random.

    As in the original script, each cut token is at the front with probability 1/2. The lengths
    alone decide how many tokens A and B lose, so all cuts are made at once: the number cut at the
    front is drawn from a binomial distribution.
    """
    a, b = sequences.a_length, sequences.b_length
    # An input without B was made to fit.
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
