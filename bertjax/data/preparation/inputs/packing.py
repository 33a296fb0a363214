"""Packing of inputs into rows with little padding, by a histogram of lengths (arXiv 2107.02027).

The method is "best fit decreasing": the longest inputs come first, and each input goes into the
fullest row in which it fits. All inputs of one length are placed together, so the time depends more
on the length of rows than on the number of inputs.
"""

from typing import NamedTuple

import numpy as np

RowLengths = tuple[int, ...]
"""Lengths of the inputs in one row, in the order in which they stand in the row."""


class Placement(NamedTuple):
    """The row and the position of each input; all fields are int64 `[n]`."""

    row: np.ndarray
    offset: np.ndarray
    """Position of the input's first id in the row."""
    number: np.ndarray
    """Number of the input in its row: 1, 2, …"""


class RowPattern(NamedTuple):
    """Several rows whose inputs have the same lengths; `rows` is the number of these rows."""

    lengths: RowLengths
    rows: int


def alone(count: int) -> Placement:
    """Place each of `count` inputs in a row of its own."""
    return Placement(np.arange(count), np.zeros(count, np.int64), np.ones(count, np.int64))


def pack(lengths: np.ndarray, max_seq_length: int, max_sequences_per_row: int) -> Placement:
    """Place inputs in rows; `lengths`, int `[n]`, are their lengths, each 1 to `max_seq_length`.

    A row has at most `max_seq_length` ids and at most `max_sequences_per_row` inputs.
    """
    # The inputs of each length in reverse order, so that `pop` returns them in order.
    available = [
        np.flatnonzero(lengths == length)[::-1].tolist() for length in range(max_seq_length + 1)
    ]
    placement = Placement(*np.zeros((3, len(lengths)), np.int64))
    row = 0
    histogram = np.bincount(lengths, minlength=max_seq_length + 1)
    for pattern in _row_patterns(histogram, max_seq_length, max_sequences_per_row):
        for _ in range(pattern.rows):
            offset = 0
            for number, length in enumerate(pattern.lengths, 1):
                index = available[length].pop()
                placement.row[index] = row
                placement.offset[index] = offset
                placement.number[index] = number
                offset += length
            row += 1
    return placement


class _RowPool:
    """Rows that are being filled, grouped by the lengths that they hold."""

    def __init__(self, max_length: int, max_inputs: int):
        self._max_inputs = max_inputs
        # For each number of ids left: how many open rows hold inputs of which lengths.
        self._open: list[dict[RowLengths, int]] = [{} for _ in range(max_length + 1)]
        self._closed: list[RowPattern] = []

    def put(self, lengths: RowLengths, count: int, room: int) -> None:
        """Add `count` rows that hold inputs of these lengths and have `room` ids left."""
        if len(lengths) == self._max_inputs or not room:
            self._closed.append(RowPattern(lengths, count))
        else:
            self._open[room][lengths] = self._open[room].get(lengths, 0) + count

    def take(self, room: int, max_count: int) -> RowPattern | None:
        """Remove up to `max_count` rows with exactly `room` ids left; None if there are none."""
        if not self._open[room]:
            return None
        # All these rows fit equally well. `popitem` takes the newest entry, so the choice is the
        # same in every run.
        lengths, available = self._open[room].popitem()
        count = min(max_count, available)
        if available > count:
            self._open[room][lengths] = available - count
        return RowPattern(lengths, count)

    def patterns(self) -> list[RowPattern]:
        """List all rows: first the closed ones, then the open ones, the fullest first."""
        patterns = list(self._closed)
        for counts in self._open:
            patterns += [RowPattern(lengths, count) for lengths, count in counts.items()]
        return patterns


def _row_patterns(histogram: np.ndarray, max_length: int, max_inputs: int) -> list[RowPattern]:
    """Divide inputs into rows; there are `histogram[length]` inputs of each length."""
    pool = _RowPool(max_length, max_inputs)
    for length in range(max_length, 0, -1):
        left = int(histogram[length])
        # From the smallest room on: so each input goes into the fullest row that takes it.
        room = length
        while left and room <= max_length:
            pattern = pool.take(room, left)
            if pattern is None:
                room += 1
                continue
            pool.put((*pattern.lengths, length), pattern.rows, room - length)
            left -= pattern.rows
            # The rows that just got an input have less room now, so they may fit best for the next.
            room = max(length, room - length)
        while left:
            # Each new row gets as many inputs of this length as fit.
            together = min(max_inputs, max_length // length)
            row_count, rest = divmod(left, together)
            if not row_count:
                row_count, together = 1, rest
            pool.put((length,) * together, row_count, max_length - together * length)
            left -= row_count * together
    return pool.patterns()
