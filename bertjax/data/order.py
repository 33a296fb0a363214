"""The record numbers of each batch, computed from (seed, step) alone.

A record number is the position of a record in its split, 0 to `size` - 1. The record numbers of a
step are computed without those of earlier steps, so a run can resume at any step without delay.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Luby and Rackoff (1988): four rounds make a Feistel network a strong pseudo-random permutation.
ROUNDS = 4
# A power of 4: the Feistel network then covers just the block, and no result falls outside.
BLOCK = 1 << 16
"""Block length of a mixture: in each block of so many rows the shares of the corpora are exact."""
MIXTURE = 1  # part of a mixture's keys, so that they differ from the keys of a single corpus
# Not 0: SeedSequence gives the same numbers whether or not a key has zeros at its end.


class Place(NamedTuple):
    """A corpus, and where in it a phase begins."""

    key: tuple[int, ...]
    """The part of the keys of its permutations that follows seed and epoch."""
    taken: int
    """Number of rows that earlier phases have taken of it."""


class Reading(NamedTuple):
    """Where a phase of a run begins to read its corpora."""

    begin: int
    """The step of its first batch."""
    first_row: int
    """Number of rows of the same mixture that the phases right before it have read."""
    places: tuple[Place, ...]
    """One for each corpus."""

    def rows(self, batch_size: int, step: int) -> np.ndarray:
        """Return the numbers of the rows of a step's batch, int64 `[batch_size]`."""
        first = self.first_row + (step - self.begin) * batch_size
        return np.arange(first, first + batch_size, dtype=np.int64)


def whole_run(corpora: int) -> Reading:
    """Return where a run begins that has one phase and so many corpora."""
    keys = [()] if corpora == 1 else [(corpus, MIXTURE) for corpus in range(corpora)]
    return Reading(0, 0, tuple(Place(key, 0) for key in keys))


def batch_record_numbers(size: int, rows: np.ndarray, seed: int, place: Place) -> np.ndarray:
    """Return the record numbers in 0..`size`-1 of `rows`; int64, of their shape.

    Each epoch has its own order. One epoch follows the other without a gap, so a batch may hold the
    end of one epoch and the start of the next.
    """
    positions = place.taken + rows
    epochs, offsets = positions // size, positions % size
    record_numbers = np.empty_like(positions)
    # More than two epochs meet in a batch that is larger than the split.
    for epoch in np.unique(epochs):
        here = epochs == epoch
        record_numbers[here] = permute(offsets[here], size, (seed, int(epoch), *place.key))
    return record_numbers


def mixture_record_numbers(
    sizes: Sequence[int], quotas: np.ndarray, rows: np.ndarray, seed: int, places: Sequence[Place]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (corpora, record numbers) of `rows` of a mixture; int64, of their shape.

    In every block of `BLOCK` rows, corpus `c` has `quotas[c]` rows; the quotas sum to `BLOCK`. The
    order of the rows in a block depends on the seed. The records of one corpus are taken epoch by
    epoch as in `batch_record_numbers`; each corpus has its own epochs.
    """
    blocks, offsets = rows // BLOCK, rows % BLOCK
    slots = np.empty_like(offsets)
    for block in np.unique(blocks):
        here = blocks == block
        slots[here] = permute(offsets[here], BLOCK, (seed, int(block), MIXTURE))
    # Corpus `c` owns the slots from `ends[c] - quotas[c]` to `ends[c] - 1` of each block.
    ends = np.cumsum(quotas)
    # "right": the slot `ends[c]` is the first one of the next corpus.
    corpora = np.searchsorted(ends, slots, side="right")
    # Number of earlier rows from the same corpus, over all blocks and epochs.
    drawn = blocks * quotas[corpora] + slots - (ends - quotas)[corpora]
    record_numbers = np.empty_like(drawn)
    for corpus in np.unique(corpora):
        here = corpora == corpus
        record_numbers[here] = batch_record_numbers(
            sizes[corpus], drawn[here], seed, places[corpus]
        )
    return corpora, record_numbers


def quotas_of(weights: Sequence[float]) -> np.ndarray:
    """Return integers that are proportional to the weights, at least 1 each, with sum `BLOCK`.

    They are int64. After rounding down, the entries with the largest fractions get one more each
    (Hamilton's method).
    """
    shares = np.array(weights, np.float64)
    # Every corpus first gets one slot, so that a corpus with a small weight has at least one.
    exact = shares / shares.sum() * (BLOCK - len(shares)) + 1
    quotas = np.floor(exact).astype(np.int64)
    # Stable, so that of equal fractions the first corpus is served first on every machine.
    largest_fraction_first = np.argsort(quotas - exact, kind="stable")
    quotas[largest_fraction_first[: BLOCK - quotas.sum()]] += 1
    return quotas


def permute(indices: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Return the images of `indices` under a keyed permutation of 0..`size`-1; int64.

    The permutation is a Feistel network (Luby and Rackoff, 1988) on the smallest even number of
    bits that can hold `size - 1`. A result outside the range is permuted again until it is inside
    (cycle walking: Black and Rogaway, 2002); this takes fewer than four rounds on average. `size`
    is 1 to 2**40. Time and memory depend only on the number of indices.
    """
    half_bits = max(1, (int(size - 1).bit_length() + 1) // 2)
    round_keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    images = np.array(indices, np.uint64)  # a copy, because it is changed in place
    outside = np.ones(images.shape, bool)
    # It ends: repeated often enough, a permutation leads each index back to itself.
    while outside.any():
        images[outside] = _feistel(images[outside], np.uint64(half_bits), round_keys)
        outside = images >= np.uint64(size)
    return images.astype(np.int64)


def unpermute(images: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Return the indices whose images under `permute` are `images`; int64, the inverse of it."""
    half_bits = max(1, (int(size - 1).bit_length() + 1) // 2)
    round_keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    indices = np.array(images, np.uint64)
    outside = np.ones(indices.shape, bool)
    # `permute` went on from a number outside the range, so its inverse goes back over it.
    while outside.any():
        indices[outside] = _inverse_feistel(indices[outside], np.uint64(half_bits), round_keys)
        outside = indices >= np.uint64(size)
    return indices.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: np.uint64, round_keys: np.ndarray) -> np.ndarray:
    """Apply a balanced Feistel network of `2 * half_bits` bits; uint64 in and out."""
    low_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & low_mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & low_mask)
    return left << half_bits | right


def _inverse_feistel(
    values: np.ndarray, half_bits: np.uint64, round_keys: np.ndarray
) -> np.ndarray:
    """Undo `_feistel`: the same rounds in the opposite order."""
    low_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & low_mask
    for key in round_keys[::-1]:
        left, right = right ^ (_mix(left ^ key) & low_mask), left
    return left << half_bits | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Apply the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) to uint64 values.

    A change of one bit of the input changes each bit of the output with a probability near 1/2.
    """
    # Arrays of uint64 multiply modulo 2^64, as the finalizer asks, and numpy does not warn.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
