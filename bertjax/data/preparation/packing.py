"""Packing of inputs into rows with little padding, by a histogram of lengths (arXiv 2107.02027).

Longest first, each into the fullest row that has room: best fit decreasing. It is done for all
inputs of a length at once and not for one after another, so its time depends on the lengths of
rows more than on the number of inputs.
"""

from typing import NamedTuple

import numpy as np

RowLengths = tuple[int, ...]
"""The lengths of the inputs of a row, in their order."""


class Placement(NamedTuple):
    """The position of each input; all int64 `[n]`."""

    row: np.ndarray
    offset: np.ndarray
    """Its first position in the row."""
    number: np.ndarray
    """1, 2, … in its row."""


class RowPattern(NamedTuple):
    """A number of rows that hold inputs of the same lengths."""

    lengths: RowLengths
    rows: int


def alone(count: int) -> Placement:
    """Place each of `count` inputs in a row of its own."""
    return Placement(np.arange(count), np.zeros(count, np.int64), np.ones(count, np.int64))


def pack(lengths: np.ndarray, max_seq_length: int, max_sequences_per_row: int) -> Placement:
    """Place inputs of these lengths, int `[n]`, each 1 to `max_seq_length`, in rows.

    No row is longer than `max_seq_length` or has more than `max_sequences_per_row` inputs.
    """
    # Inputs by their length, the first one last: `pop` gives them in their order.
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
        # Counts of rows by their room, and then by what they hold.
        self._open: list[dict[RowLengths, int]] = [{} for _ in range(max_length + 1)]
        self._closed: list[RowPattern] = []

    def put(self, lengths: RowLengths, count: int, room: int) -> None:
        """Add `count` rows of these lengths, which have `room` ids left."""
        if len(lengths) == self._max_inputs or not room:
            self._closed.append(RowPattern(lengths, count))
        else:
            self._open[room][lengths] = self._open[room].get(lengths, 0) + count

    def take(self, room: int, max_count: int) -> RowPattern | None:
        """Remove up to `max_count` rows with exactly this room, None where there are none."""
        if not self._open[room]:
            return None
        # All fit equally well. A dict gives its last entry, so the choice is the same each time.
        lengths, available = self._open[room].popitem()
        count = min(max_count, available)
        if available > count:
            self._open[room][lengths] = available - count
        return RowPattern(lengths, count)

    def patterns(self) -> list[RowPattern]:
        """List all rows: the closed ones, then the open ones by their room."""
        patterns = list(self._closed)
        for counts in self._open:
            patterns += [RowPattern(lengths, count) for lengths, count in counts.items()]
        return patterns


def _row_patterns(histogram: np.ndarray, max_length: int, max_inputs: int) -> list[RowPattern]:
    """Divide inputs, `histogram[length]` of each length, into rows."""
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
            # The rows just filled have less room now, and may be the best fit for another input.
            room = max(length, room - length)
        while left:
            # As many of this length in new rows as fit together.
            together = min(max_inputs, max_length // length)
            row_count, rest = divmod(left, together)
            if not row_count:
                row_count, together = 1, rest
            pool.put((length,) * together, row_count, max_length - together * length)
            left -= row_count * together
    return pool.patterns()
