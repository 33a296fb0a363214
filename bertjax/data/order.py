"""Which rows a batch holds: a pure function of (seed, step)."""

from collections.abc import Sequence

import numpy as np

ROUNDS = 4
BLOCK = 1 << 16  # rows of a mixture within which the shares are exact
_MIXTURE = 1  # keeps the keys of mixtures apart from those of plain orders


def batch_rows(size: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The rows, int64 `[batch_size]` in 0..size-1, of the batch of `step` (0-based).

    Epochs follow on one another without a break, each in its own order; a batch may hold the
    end of one and the start of the next.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, places = positions // size, positions % size
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permute(places[here], size, (seed, int(epoch)))
    return rows


def mixture_rows(
    sizes: Sequence[int], quotas: np.ndarray, batch_size: int, step: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(corpus, row in it), int64 `[batch_size]` each, of the batch of `step` (0-based) of a
    mixture.

    Of every `BLOCK` rows, corpus `c` gives `quotas[c]` (they sum to `BLOCK`), the order within a
    block keyed by the seed; each corpus goes through its rows as in `batch_rows`, at its own pace.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    blocks, places = positions // BLOCK, positions % BLOCK
    slots = np.empty_like(places)
    for block in np.unique(blocks):
        here = blocks == block
        slots[here] = permute(places[here], BLOCK, (seed, int(block), _MIXTURE))
    ends = np.cumsum(quotas)
    corpora = np.searchsorted(ends, slots, side="right")
    drawn = blocks * quotas[corpora] + slots - (ends - quotas)[corpora]
    rows = np.empty_like(drawn)
    for corpus in np.unique(corpora):
        size = sizes[corpus]
        for epoch in np.unique(drawn[corpora == corpus] // size):
            here = (corpora == corpus) & (drawn // size == epoch)
            rows[here] = permute(
                drawn[here] % size, size, (seed, int(epoch), int(corpus), _MIXTURE)
            )
    return corpora, rows


def quotas_of(weights: Sequence[float]) -> np.ndarray:
    """Whole numbers in proportion to the weights, each 1 or more, that sum to `BLOCK`; int64."""
    shares = np.array(weights, np.float64)
    exact = shares / shares.sum() * (BLOCK - len(shares)) + 1
    quotas = np.floor(exact).astype(np.int64)
    most_short = np.argsort(quotas - exact, kind="stable")
    quotas[most_short[: BLOCK - quotas.sum()]] += 1
    return quotas


def permute(indices: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Where a keyed bijection of 0..size-1 sends `indices`; int64, the cost not depending on
    `size`.

    A Feistel network (Luby and Rackoff, 1988) on the smallest even number of bits that holds
    `size`; what falls outside is sent on until it falls inside (cycle walking: Black and
    Rogaway, 2002), less than four times on average. `size` is 1 to 2**40.
    """
    half = max(1, (int(size - 1).bit_length() + 1) // 2)
    round_keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    found = np.array(indices, np.uint64)  # a copy: it is written to
    outside = np.ones(found.shape, bool)
    while outside.any():
        found[outside] = _feistel(found[outside], np.uint64(half), round_keys)
        outside = found >= np.uint64(size)
    return found.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, round_keys: np.ndarray) -> np.ndarray:
    low = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & low
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & low)
    return left << half | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit in moves half of the bits
    out.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
