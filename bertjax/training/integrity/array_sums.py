"""Sums over an array that change when one of its bits does, however the array is divided.

A sum adds up the numbers' bits as unsigned 32-bit words, each times a weight that belongs to its
place in the whole array, modulo 2^32. The weight of a place is the product of one weight for each
axis. So the sums of parts add up to the sum of the whole, whichever devices or processes hold the
parts.

The weights are odd: the product with an odd number is 0 for the word 0 alone, so a change within
one word always changes the first sum. It would miss, for example, two numbers that both change
their sign, because their topmost bits cancel: 2 * 2^31 is 0. The second sum is that of the upper
halves of the words with other weights, where these bits are in the middle. Of two changed bits
both sums miss at worst one pair in 2^16, of scattered changes one case in 2^48.
"""

import math
from collections.abc import Sequence

import numpy as np

SUMS = 2
WORD = np.dtype(np.uint32)
# Numbers in a row below which a sum of a row costs more than the call that makes it.
ROW = 1024
# Words of a block: it stays in the cache of a core (512 KiB) for both sums.
BLOCK = 1 << 17
UPPER_HALF = 16


def part_sums(part: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """Return the sums of a part of an array, uint32 `[SUMS]`.

    `starts` has the position in the whole array of the part's first number, for each axis. Add the
    results of all parts for the sums of the array.
    """
    words = _words(part)
    starts = (*starts, *(0 for _ in range(words.ndim - len(starts))))
    split = _first_axis_of_rows(words.shape)
    rows = words.reshape(math.prod(words.shape[:split]), -1)
    spans = [(start, start + size) for start, size in zip(starts, words.shape, strict=True)]
    row_weights = [_place_weights(spans[:split], 0, table) for table in range(SUMS)]
    weights = [_place_weights(spans[split:], split, table) for table in range(SUMS)]
    step = max(1, BLOCK // max(1, rows.shape[1]))
    upper = np.empty(rows[:step].shape, WORD)  # one for all blocks: a new one costs more than a sum
    by_row = np.empty((SUMS, len(rows)), WORD)
    for begin in range(0, len(rows), step):
        block = rows[begin : begin + step].astype(WORD, copy=False)
        np.right_shift(block, UPPER_HALF, out=upper[: len(block)])
        for table, values in enumerate((block, upper[: len(block)])):
            target = by_row[table, begin : begin + step]
            np.einsum("ij,j->i", values, weights[table], out=target)
    return np.einsum("ti,ti->t", by_row, np.stack(row_weights))


def _words(part: np.ndarray) -> np.ndarray:
    """Return the bits of an array as unsigned integers of at most 32 bits.

    Numbers of 64 bits and more get a last axis of words.
    """
    part = np.ascontiguousarray(part).reshape(part.shape or (1,))
    size = part.dtype.itemsize
    if size <= WORD.itemsize:
        return part.view(np.dtype(f"u{size}"))
    return part.view(WORD).reshape(*part.shape, size // WORD.itemsize)


def _first_axis_of_rows(shape: tuple[int, ...]) -> int:
    """Return the first of the last axes that together are a row: neither short nor over a block."""
    axis = len(shape) - 1
    while axis > 0 and math.prod(shape[axis:]) < ROW and math.prod(shape[axis - 1 :]) <= BLOCK:
        axis -= 1
    return axis


def _place_weights(spans: Sequence[tuple[int, int]], first_axis: int, table: int) -> np.ndarray:
    """Return the products of the axes' weights for each place, in the order of memory."""
    products = np.ones(1, WORD)
    for axis, (start, stop) in enumerate(spans, first_axis):
        products = np.multiply.outer(products, _axis_weights(axis, start, stop, table)).ravel()
    return products


def _axis_weights(axis: int, start: int, stop: int, table: int) -> np.ndarray:
    """Return the odd weights of the positions `start` to `stop` of an axis.

    Each is a hash of position, axis and table: the rounds that end MurmurHash3, which change each
    bit of the result with each bit of the input.
    """
    seed = (axis * SUMS + table + 1) * 0x9E3779B9
    values = np.arange(start, stop, dtype=np.uint64) * 0x85EBCA77 + seed
    bits = values.astype(WORD)
    bits ^= bits >> 16
    bits *= WORD.type(0x85EBCA6B)
    bits ^= bits >> 13
    bits *= WORD.type(0xC2B2AE35)
    bits ^= bits >> 16
    return bits | WORD.type(1)
