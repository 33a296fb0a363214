"""Which rows a batch holds: a pure function of (seed, step)."""

import numpy as np

ROUNDS = 4


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


def permute(indices: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Where a keyed bijection of 0..size-1 sends `indices`; int64, the cost not depending on `size`.

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
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit in moves half of the bits out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
