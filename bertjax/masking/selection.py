"""Masked-word selection for many rows at once, written once for NumPy and for JAX.

Preparation calls `mask_tokens` with NumPy (`static.py`), the train step with `jax.numpy`
(`dynamic.py`). All randomness comes in as arrays of uniform numbers that the caller draws, so the
same numbers give the same masks in both libraries; tests hold this.

A unit is a group of neighbouring tokens that are chosen together or not at all: a token, a whole
word, or a run of words (an n-gram or a span).

B rows   L length   P predicted positions (`max_predictions`)
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

Masking = Literal["token", "whole_word", "ngram", "span"]
"""Kind of units that are chosen, as in `DataConfig.masking`."""
AnyArray = Any
"""An array of NumPy or of JAX; all arrays of one call are of the same library."""
Uniform = Callable[[tuple[int, ...]], AnyArray]
"""Function that returns new float32 numbers in [0, 1) of a given shape at each call."""
GreedySelection = Callable[[AnyArray, AnyArray, AnyArray], AnyArray]
"""`greedy(sizes, order, budget)`: the units that are taken, bool [B, L].

Goes through each row's units in `order` (int32 [B, L], unit numbers) and takes every unit whose
size (int32 [B, L], tokens; 0: no unit) still fits into what is left of `budget` (int32 [B, 1]).
"""


class ArrayLibrary(NamedTuple):
    """An array library with the two operations that need another form in each library."""

    xp: Any
    """The module `numpy` or `jax.numpy`."""
    put: Callable[[AnyArray, AnyArray, AnyArray], AnyArray]
    """`put(array, columns, values)`: a copy of `array` [B, L] with `values` at each row's
    `columns`, all [B, …].
    """
    greedy: GreedySelection


# Probabilities that a unit has 1, 2, ... words, before they are normalized.
_NGRAM_WEIGHTS = [1 / 1, 1 / 2, 1 / 3]  # 1/n, at most 3 words (ALBERT, arXiv 1909.11942, 3.1)
# Geometric with p = 0.2, at most 10 words (SpanBERT, arXiv 1907.10529, 3.1).
_SPAN_WEIGHTS = [0.2 * 0.8 ** (words - 1) for words in range(1, 11)]
UNIT_LENGTHS: dict[Masking, list[float]] = {
    "ngram": [weight / sum(_NGRAM_WEIGHTS) for weight in _NGRAM_WEIGHTS],
    "span": [weight / sum(_SPAN_WEIGHTS) for weight in _SPAN_WEIGHTS],
}
"""Probabilities of units of 1, 2, ... words for the kinds of masking that choose several words."""


class Vocabulary(NamedTuple):
    """The part of a tokenizer's vocabulary that masking needs."""

    mask_id: int
    special_ids: tuple[int, ...]
    """Ids that are neither chosen nor drawn as a random token, ascending."""
    size: int
    max_word_pieces: int = 0
    """Pieces of the longest word that is chosen as a whole; 0: any number. Longer ones are divided
    beforehand, by `long_words`.
    """


def mask_tokens(
    library: ArrayLibrary,
    input_ids: AnyArray,
    input_mask: AnyArray,
    word_starts: AnyArray,
    *,
    vocabulary: Vocabulary,
    masking: Masking,
    mlm_probability: AnyArray | float,
    max_predictions: int,
    shares: Sequence[float],
    uniform: Uniform,
    weights: AnyArray | None = None,
) -> dict[str, AnyArray]:
    """Return the masked-word features of a batch.

    The share `mlm_probability` of each row's ordinary tokens (`input_mask` is 1, id not special) is
    chosen: the number is rounded, at least 1 and at most `max_predictions`. A unit of `masking` is
    chosen as a whole or not at all, so fewer tokens may be chosen, or even none. `shares` are those
    of the chosen tokens that become `[MASK]`, become a random ordinary token, and do not change.
    With `masking` "span", all tokens of a span share this draw (SpanBERT, arXiv 1907.10529, 3.1).

    Args:
        input_ids: int32 [B, L].
        input_mask: [B, L], 0 at padding.
        word_starts: bool [B, L], True where a word begins.
        weights: int32 [B, L], whose sum over a row is less than 2**31: single tokens are chosen
            with probabilities that are proportional to them (`_choose_weighted`).

    Returns:
        `input_ids` int32 [B, L] with the replacements; `masked_lm_positions` int32 [B, P],
        ascending; `masked_lm_ids` int32 [B, P], the original ids; `masked_lm_weights` float32
        [B, P], 1 where a prediction is used. Unused predictions are 0 in all three.
    """
    xp = library.xp
    maskable = (input_mask > 0) & ~is_special(input_ids, vocabulary)
    # The original counts [CLS] and [SEP] too (`create_masked_lm_predictions` in
    # create_pretraining_data.py); the bounds are the same there.
    available = maskable.sum(axis=1, keepdims=True)
    # The outer minimum: a row without ordinary tokens has nothing to predict, not one token.
    budget = xp.minimum(
        xp.clip(xp.rint(mlm_probability * available), 1, max_predictions), available
    ).astype(xp.int32)
    if weights is not None:
        unit_numbers, chosen = None, _choose_weighted(library, maskable, weights, budget, uniform)
    elif masking == "token":
        # Each token is a unit, so `unit_starts` is not needed: it gives the same, but slower.
        order = _random_order(xp, maskable, uniform)
        unit_numbers, chosen = None, library.greedy(maskable.astype(xp.int32), order, budget)
    else:
        starts = unit_starts(library, maskable, word_starts, masking, uniform)
        chosen, unit_numbers = _choose_units(library, starts, maskable, budget, uniform)

    length = input_ids.shape[1]
    slots = min(max_predictions, length)
    column = xp.arange(length, dtype=xp.int32)[None, :]
    # Unchosen columns become `length`, which sorts behind all chosen ones.
    positions = xp.sort(xp.where(chosen, column, length), axis=1)[:, :slots]
    used = positions < length
    positions = xp.where(used, positions, 0)
    original_ids = xp.take_along_axis(input_ids, positions, 1)
    # Drawn for the P slots and not for the whole row: only they are replaced.
    draws = uniform(positions.shape)
    if masking == "span":
        draws = _share_within_units(xp, draws, xp.take_along_axis(unit_numbers, positions, 1))
    new_ids = _replaced(xp, original_ids, draws, shares, vocabulary, uniform)
    new_ids = xp.where(used, new_ids, original_ids)

    # Every row writes the same number of columns, so an unused slot must write something too. It
    # repeats the write of the first slot. Writing to its own position 0 could undo the new id of a
    # chosen column.
    columns = xp.where(used, positions, positions[:, :1])
    values = xp.where(used, new_ids, new_ids[:, :1])
    padding = [(0, 0), (0, max_predictions - slots)]
    return {
        "input_ids": library.put(input_ids, columns, values.astype(xp.int32)),
        "masked_lm_positions": xp.pad(positions, padding).astype(xp.int32),
        "masked_lm_ids": xp.pad(xp.where(used, original_ids, 0), padding).astype(xp.int32),
        "masked_lm_weights": xp.pad(used, padding).astype(xp.float32),
    }


def is_special(input_ids: AnyArray, vocabulary: Vocabulary) -> AnyArray:
    """Return where ids are special; bool, of the shape of `input_ids`."""
    # One comparison for each of a handful of ids, which XLA fuses into whatever uses the result.
    special = input_ids == vocabulary.special_ids[0]
    for special_id in vocabulary.special_ids[1:]:
        special = special | (input_ids == special_id)
    return special


def unit_starts(
    library: ArrayLibrary,
    maskable: AnyArray,
    word_starts: AnyArray,
    masking: Masking,
    uniform: Uniform,
) -> AnyArray:
    """Return where units begin, bool [B, L]; a token that is not `maskable` is a unit of its own.

    For "ngram" and "span" the row's words are divided into consecutive tiles, which are runs of
    words; the length of each tile is drawn from `UNIT_LENGTHS`. So a tile that is chosen at random
    has a length with this distribution, and tiles do not overlap. (The papers draw spans until
    enough tokens are chosen, which has no fixed number of passes.)
    """
    xp = library.xp
    before = xp.concatenate([xp.zeros_like(maskable[:, :1]), maskable[:, :-1]], axis=1)
    edges = ~maskable | ~before  # neither a word nor a span crosses a special token
    first_of_word = edges | word_starts
    if masking == "whole_word":
        return first_of_word
    chances = UNIT_LENGTHS[masking]
    lengths = _draw_lengths(xp, chances, uniform(maskable.shape))
    # The first tile is treated as if it began before the row. Otherwise the first words would begin
    # a unit more often than other words. The probability that n words of such a tile remain is
    # proportional to the probability that a tile has n words or more.
    tails = [sum(chances[n:]) for n in range(len(chances))]
    tail_chances = [tail / sum(tails) for tail in tails]
    remaining = _draw_lengths(xp, tail_chances, uniform((lengths.shape[0], 1)))
    # Word numbers at which the next tile begins. A row has at most L words, so those beyond the
    # row's end may all go to its last word.
    ends = xp.minimum(
        xp.cumsum(lengths, axis=1) - lengths[:, :1] + remaining, maskable.shape[1] - 1
    )
    begins_unit = library.put(xp.zeros_like(maskable), ends, xp.ones_like(maskable))
    # Column 0 is an edge and so begins a word: no number is negative.
    word_numbers = xp.cumsum(first_of_word, axis=1) - 1
    return edges | (first_of_word & xp.take_along_axis(begins_unit, word_numbers, 1))


def _draw_lengths(xp: Any, chances: list[float], draws: AnyArray) -> AnyArray:
    """Return 1, 2, ... with these probabilities for each uniform number of `draws`; int32."""
    bounds = [sum(chances[:n]) for n in range(1, len(chances))]
    return 1 + sum((draws >= bound).astype(xp.int32) for bound in bounds)


def _choose_units(
    library: ArrayLibrary,
    starts: AnyArray,
    maskable: AnyArray,
    budget: AnyArray,
    uniform: Uniform,
) -> tuple[AnyArray, AnyArray]:
    """Go through units in a random order and take each that fits.

    Returns the chosen tokens, bool [B, L], and each token's unit number, int32 [B, L].
    """
    xp = library.xp
    length = starts.shape[1]
    column = xp.arange(length, dtype=xp.int32)[None, :]
    # int32 in both libraries: numpy would choose int64 by itself.
    unit_numbers = (xp.cumsum(starts, axis=1, dtype=xp.int32) - 1).astype(xp.int32)
    # By unit number: its first column, then the column after its last; `length` past the last unit.
    first = xp.sort(xp.where(starts, column, length), axis=1)
    after = xp.concatenate([first[:, 1:], xp.full_like(first[:, :1], length)], axis=1)
    # Past the last unit `first` is `length`, an index that numpy refuses.
    real = xp.take_along_axis(maskable, xp.minimum(first, length - 1), 1) & (first < length)
    # A unit that does not fit is passed over, as in the original (`create_masked_lm_predictions`).
    taken = library.greedy(
        xp.where(real, after - first, 0), _random_order(xp, real, uniform), budget
    )
    return xp.take_along_axis(taken, unit_numbers, 1) & maskable, unit_numbers


def _choose_weighted(
    library: ArrayLibrary,
    maskable: AnyArray,
    weights: AnyArray,
    budget: AnyArray,
    uniform: Uniform,
) -> AnyArray:
    """Choose tokens in proportion to their weights; bool [B, L].

    Systematic sampling in a random order (Madow 1949): of n tokens to choose with the weights w of
    sum W, each one is chosen with the probability min(1, n w / W), exactly but for rounding, and n
    are chosen where none of these is 1. The weights are put on a line of the length n, and those
    are chosen in which one of the points u, u + 1, u + 2 and so on lies, u uniform in [0, 1).
    """
    xp = library.xp
    order = _random_order(xp, maskable, uniform)
    # Whole numbers: their sums do not depend on the order in which devices add them up.
    ends = xp.cumsum(
        xp.take_along_axis(xp.where(maskable, weights, 0), order, 1), axis=1, dtype=xp.int32
    )
    total = xp.maximum(ends[:, -1:], 1)
    shares = ends.astype(xp.float32) / total.astype(xp.float32)
    points = xp.floor(shares * budget.astype(xp.float32) + uniform(budget.shape))
    # The sum above may be rounded up to the next whole number.
    points = xp.minimum(points.astype(xp.int32), budget)
    before = xp.concatenate([xp.zeros_like(points[:, :1]), points[:, :-1]], axis=1)
    return library.put(xp.zeros_like(maskable), order, points > before)


def _random_order(xp: Any, real: AnyArray, uniform: Uniform) -> AnyArray:
    """Return each row's columns in a random order, `real` ones before the rest; int32 [B, L]."""
    length = real.shape[1]
    # Each sort key holds a random number in its high bits and the column in its low bits: sorting
    # numbers is faster than sorting indices by them. A float32 in [0, 1) has at most 24 random
    # bits, and bit 31 marks columns that are not real, so the key fits 32 bits.
    bits = max(length - 1, 1).bit_length()
    priorities = xp.floor(uniform(real.shape) * 2 ** min(24, 31 - bits)).astype(xp.uint32)
    priorities = xp.where(real, priorities, 2 ** (31 - bits)).astype(xp.uint32)
    keys = (priorities << bits) | xp.arange(length, dtype=xp.uint32)[None, :]
    return (xp.sort(keys, axis=1) & (2**bits - 1)).astype(xp.int32)


def _replaced(
    xp: Any,
    original_ids: AnyArray,
    draws: AnyArray,
    shares: Sequence[float],
    vocabulary: Vocabulary,
    uniform: Uniform,
) -> AnyArray:
    """Return [MASK], a random ordinary id or the original id for each of the uniform `draws`."""
    masked, random, kept = shares
    # Without kept tokens every draw, which is below 1, gives another id: a sum such as 0.9 + 0.1
    # might be rounded to less than 1.
    replaced = masked + random if kept else 1.0
    # The original draws from the whole vocabulary, special tokens included.
    random_ids = _ordinary_ids(xp, uniform(original_ids.shape), vocabulary)
    return xp.where(
        draws < (masked if random or kept else 1.0),
        vocabulary.mask_id,
        xp.where(draws < replaced, random_ids, original_ids),
    )


def _share_within_units(xp: Any, draws: AnyArray, unit_numbers: AnyArray) -> AnyArray:
    """Return `draws` [B, P] with the same number at all neighbouring slots of one unit."""
    changes = xp.concatenate(
        [
            xp.zeros_like(unit_numbers[:, :1]),
            (unit_numbers[:, 1:] != unit_numbers[:, :-1]).astype(unit_numbers.dtype),
        ],
        axis=1,
    )
    return xp.take_along_axis(draws, xp.cumsum(changes, axis=1), 1)


def _ordinary_ids(xp: Any, draws: AnyArray, vocabulary: Vocabulary) -> AnyArray:
    """Return an ordinary id for each uniform number of `draws`, all equally likely; int32."""
    count = vocabulary.size - len(vocabulary.special_ids)
    # `draws * count` may round up to `count` in float32.
    ids = xp.minimum(xp.floor(draws * count), count - 1).astype(xp.int32)
    # Ascending, so that each special id is stepped over once: number n becomes the nth ordinary id.
    for special_id in vocabulary.special_ids:
        ids = ids + (ids >= special_id).astype(xp.int32)
    return ids
