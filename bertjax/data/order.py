"""The record numbers of each batch, computed from (seed, step) alone.

A record number is the position of a record in its split, 0 to `size` - 1. The record numbers of a
step are computed without those of earlier steps, so a run can resume at any step without delay.
"""

from collections.abc import Sequence

import numpy as np

# Luby and Rackoff (1988): four rounds make a Feistel network a strong pseudo-random permutation.
ROUNDS = 4
# A power of 4: the Feistel network then covers just the block, and no result falls outside.
BLOCK = 1 << 16
"""Block length of a mixture: in each block of so many rows the shares of the corpora are exact."""
_MIXTURE = 1  # part of a mixture's keys, so that they differ from the keys of a single corpus
# Not 0: SeedSequence gives the same numbers whether or not a key has zeros at its end.


def batch_record_numbers(size: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Return the record numbers, int64 `[batch_size]` in 0..`size`-1, of the batch of a step.

    `step` is 0-based. Each epoch has its own order. One epoch follows the other without a gap, so a
    batch may hold the end of one epoch and the start of the next.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, offsets = positions // size, positions % size
    record_numbers = np.empty_like(positions)
    # More than two epochs meet in a batch that is larger than the split.
    for epoch in np.unique(epochs):
        here = epochs == epoch
        record_numbers[here] = permute(offsets[here], size, (seed, int(epoch)))
    return record_numbers


def mixture_record_numbers(
    sizes: Sequence[int], quotas: np.ndarray, batch_size: int, step: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (corpora, record numbers) of the rows of a mixture's batch, int64 `[batch_size]` each.

    `step` is 0-based. In every block of `BLOCK` rows, corpus `c` has `quotas[c]` rows; the quotas
    sum to `BLOCK`. The order of the rows in a block depends on the seed. The records of one corpus
    are taken epoch by epoch as in `batch_record_numbers`; each corpus has its own epochs.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    blocks, offsets = positions // BLOCK, positions % BLOCK
    slots = np.empty_like(offsets)
    for block in np.unique(blocks):
        here = blocks == block
        slots[here] = permute(offsets[here], BLOCK, (seed, int(block), _MIXTURE))
    # Corpus `c` owns the slots from `ends[c] - quotas[c]` to `ends[c] - 1` of each block.
    ends = np.cumsum(quotas)
    # "right": the slot `ends[c]` is the first one of the next corpus.
    corpora = np.searchsorted(ends, slots, side="right")
    # Number of earlier rows from the same corpus, over all blocks and epochs.
    drawn = blocks * quotas[corpora] + slots - (ends - quotas)[corpora]
    record_numbers = np.empty_like(drawn)
    for corpus in np.unique(corpora):
        size = sizes[corpus]
        for epoch in np.unique(drawn[corpora == corpus] // size):
            here = (corpora == corpus) & (drawn // size == epoch)
            key = (seed, int(epoch), int(corpus), _MIXTURE)
            record_numbers[here] = permute(drawn[here] % size, size, key)
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


def _feistel(values: np.ndarray, half_bits: np.uint64, round_keys: np.ndarray) -> np.ndarray:
    """Apply a balanced Feistel network of `2 * half_bits` bits; uint64 in and out."""
    low_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & low_mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & low_mask)
    return left << half_bits | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Apply the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) to uint64 values.

    A change of one bit of the input changes each bit of the output with a probability near 1/2.
    """
    # Arrays of uint64 multiply modulo 2^64, as the finalizer asks, and numpy does not warn.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
