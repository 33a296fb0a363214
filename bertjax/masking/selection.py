"""Choosing what rows are to predict, for many rows at once, in numpy or in JAX alike.

Preparation calls this with numpy, the training step with `jax.numpy`. Everything random is an
array of uniform numbers that the caller draws.

B rows   L length   P predicted positions (`max_predictions`)
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

MASKED, RANDOM = (
    0.8,
    0.1,
)  # of the chosen tokens; the rest stay as they are (arXiv 1810.04805, section 3.1)

Masking = Literal["token", "whole_word", "ngram", "span"]
Uniform = Callable[[tuple[int, ...]], Any]
"""Float32 numbers in [0, 1) of a shape, others at each call."""
Greedy = Callable[[Any, Any, Any], Any]
"""`greedy(sizes, order, wanted)`: going through each row's units in the `order` int32 [B, L], take
every one of a size (int32 [B, L]) above 0 that still fits into what is left of `wanted` int32
[B, 1]; which units are taken, bool [B, L].
"""


class Library(NamedTuple):
    """An array library, and what takes another form in each."""

    xp: Any
    """`numpy` or `jax.numpy`."""
    put: Callable[[Any, Any, Any], Any]
    """`put(array, columns, values)`: a copy of `array` [B, L] with `values` at each row's
    `columns`, all [B, …].
    """
    greedy: Greedy


# Probabilities of 1, 2, ... words to be chosen together.
_NGRAM = [1 / 1, 1 / 2, 1 / 3]  # arXiv 1909.11942, section 3.1
_SPAN = [0.2 * 0.8 ** (words - 1) for words in range(1, 11)]  # arXiv 1907.10529, section 3.1
RUNS: dict[Masking, list[float]] = {
    "ngram": [p / sum(_NGRAM) for p in _NGRAM],
    "span": [p / sum(_SPAN) for p in _SPAN],
}


class Vocabulary(NamedTuple):
    """What masking must know of a tokenizer."""

    mask_id: int
    special_ids: tuple[int, ...]
    """Ids that are neither chosen nor drawn as a random token, ascending."""
    size: int


def mask_tokens(
    library: Library,
    input_ids: Any,
    input_mask: Any,
    word_starts: Any,
    *,
    vocabulary: Vocabulary,
    masking: Masking,
    mlm_probability: float,
    max_predictions: int,
    uniform: Uniform,
) -> dict[str, Any]:
    """Masked-word features of rows.

    Of each row's ordinary tokens (where `input_mask` is 1, and no special id) `mlm_probability` are
    wanted, rounded, one at least and `max_predictions` at most; what `masking` keeps together is
    chosen whole or not at all, so that fewer may be chosen, even none. `word_starts` bool [B, L]
    says where a word begins. 80 % of the chosen become `[MASK]`, 10 % a random ordinary token, 10 %
    stay; a span has one fate. Gives `input_ids` [B, L] changed so, and `masked_lm_positions`
    (ascending), `masked_lm_ids` int32, `masked_lm_weights` float32 [B, P], 0 where unused.
    """
    xp = library.xp
    maskable = (input_mask > 0) & ~is_special(input_ids, vocabulary)
    available = maskable.sum(axis=1, keepdims=True)
    wanted = xp.minimum(
        xp.clip(xp.rint(mlm_probability * available), 1, max_predictions), available
    ).astype(xp.int32)

    if masking == "token":
        order = _random_order(xp, maskable, uniform)
        unit, chosen = None, library.greedy(maskable.astype(xp.int32), order, wanted)
    else:
        begins = unit_starts(library, maskable, word_starts, masking, uniform)
        chosen, unit = _choose(library, begins, maskable, wanted, uniform)
    length = input_ids.shape[1]
    slots = min(max_predictions, length)
    column = xp.arange(length, dtype=xp.int32)[None, :]
    positions = xp.sort(xp.where(chosen, column, length), axis=1)[:, :slots]
    used = positions < length
    positions = xp.where(used, positions, 0)
    there = xp.take_along_axis(input_ids, positions, 1)

    fate = uniform(positions.shape)
    if masking == "span":
        fate = _one_a_unit(xp, fate, xp.take_along_axis(unit, positions, 1))
    strangers = _ordinary(xp, uniform(positions.shape), vocabulary)
    shown = xp.where(
        fate < MASKED, vocabulary.mask_id, xp.where(fate < MASKED + RANDOM, strangers, there)
    )
    shown = xp.where(used, shown, there)
    # Unused slots write what the first one does, again.
    places, values = (xp.where(used, x, x[:, :1]) for x in (positions, shown))
    unused = [(0, 0), (0, max_predictions - slots)]
    return {
        "input_ids": library.put(input_ids, places, values.astype(xp.int32)),
        "masked_lm_positions": xp.pad(positions, unused).astype(xp.int32),
        "masked_lm_ids": xp.pad(xp.where(used, there, 0), unused).astype(xp.int32),
        "masked_lm_weights": xp.pad(used, unused).astype(xp.float32),
    }


def is_special(input_ids: Any, vocabulary: Vocabulary) -> Any:
    """Which ids are special; bool, of the shape of `input_ids`."""
    found = input_ids == vocabulary.special_ids[0]
    for special in vocabulary.special_ids[1:]:
        found = found | (input_ids == special)
    return found


def unit_starts(
    library: Library, maskable: Any, word_starts: Any, masking: Masking, uniform: Uniform
) -> Any:
    """Where what is chosen together begins; bool [B, L]. What is not `maskable` stands alone."""
    xp = library.xp
    before = xp.concatenate([xp.zeros_like(maskable[:, :1]), maskable[:, :-1]], axis=1)
    edge = ~maskable | ~before  # neither a word nor a span goes over a special token
    words = edge | word_starts
    if masking == "whole_word":
        return words
    # Lengths drawn one after another tile the row's words; a tile drawn at random then has a
    # length of that distribution, and tiles do not overlap.
    chances = RUNS[masking]
    runs = _lengths(xp, chances, uniform(maskable.shape))
    # The first tile began before the row, else the first words would begin one more often than
    # others. Of such a tile n words are left as often as tiles have n words or more.
    longer = [sum(chances[n:]) for n in range(len(chances))]
    left = _lengths(xp, [chance / sum(longer) for chance in longer], uniform((runs.shape[0], 1)))
    ends = xp.minimum(xp.cumsum(runs, axis=1) - runs[:, :1] + left, maskable.shape[1] - 1)
    begins = library.put(xp.zeros_like(maskable), ends, xp.ones_like(maskable))
    word = xp.cumsum(words, axis=1) - 1
    return edge | (words & xp.take_along_axis(begins, word, 1))


def _lengths(xp: Any, chances: list[float], draws: Any) -> Any:
    """1, 2, ... with these probabilities, for each number in [0, 1); int32."""
    bounds = (sum(chances[:n]) for n in range(1, len(chances)))
    return 1 + sum((draws >= bound).astype(xp.int32) for bound in bounds)


def _choose(
    library: Library, begins: Any, maskable: Any, wanted: Any, uniform: Uniform
) -> tuple[Any, Any]:
    """Units in a random order, each taken if it fits: (chosen bool, number of its unit int32), [B,
    L].
    """
    xp = library.xp
    length = begins.shape[1]
    column = xp.arange(length, dtype=xp.int32)[None, :]
    unit = (xp.cumsum(begins, axis=1, dtype=xp.int32) - 1).astype(xp.int32)
    first = xp.sort(xp.where(begins, column, length), axis=1)
    after = xp.concatenate([first[:, 1:], xp.full_like(first[:, :1], length)], axis=1)
    real = xp.take_along_axis(maskable, xp.minimum(first, length - 1), 1) & (first < length)
    taken = library.greedy(
        xp.where(real, after - first, 0), _random_order(xp, real, uniform), wanted
    )
    return xp.take_along_axis(taken, unit, 1) & maskable, unit


def _random_order(xp: Any, real: Any, uniform: Uniform) -> Any:
    """The columns of each row in a random order, those that are `real` before the rest; int32 [B,
    L].
    """
    length = real.shape[1]
    bits = max(length - 1, 1).bit_length()
    lots = xp.floor(uniform(real.shape) * 2 ** min(24, 31 - bits)).astype(xp.uint32)
    # One number of lot and column each: sorting numbers is faster than sorting places by them.
    lots = xp.where(real, lots, 2 ** (31 - bits)).astype(xp.uint32)
    keys = (lots << bits) | xp.arange(length, dtype=xp.uint32)[None, :]
    return (xp.sort(keys, axis=1) & (2**bits - 1)).astype(xp.int32)


def _one_a_unit(xp: Any, fate: Any, unit: Any) -> Any:
    """One fate for all slots of a unit."""
    changes = xp.concatenate(
        [xp.zeros_like(unit[:, :1]), (unit[:, 1:] != unit[:, :-1]).astype(unit.dtype)], axis=1
    )
    return xp.take_along_axis(fate, xp.cumsum(changes, axis=1), 1)


def _ordinary(xp: Any, draws: Any, vocabulary: Vocabulary) -> Any:
    """An ordinary id for each number in [0, 1), all alike likely; int32."""
    count = vocabulary.size - len(vocabulary.special_ids)
    ids = xp.minimum(xp.floor(draws * count), count - 1).astype(xp.int32)
    for special in vocabulary.special_ids:  # ascending: each one's place is stepped over
        ids = ids + (ids >= special).astype(xp.int32)
    return ids
