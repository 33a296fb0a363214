"""Which inputs share a row, so that little of it is padding: by a histogram of lengths (arXiv
2107.02027).

Longest first, each into the fullest row that has room: best fit decreasing, worked a length
and not an input at a time.
"""

from typing import NamedTuple

import numpy as np


class Placement(NamedTuple):
    """Where each input stands; all int64 `[n]`."""

    row: np.ndarray
    offset: np.ndarray
    """Its first place in the row."""
    number: np.ndarray
    """1, 2, … in its row."""


def alone(count: int) -> Placement:
    """Each input in a row of its own."""
    every = np.arange(count)
    return Placement(every, np.zeros(count, np.int64), np.ones(count, np.int64))


def pack(lengths: np.ndarray, max_seq_length: int, max_sequences_per_row: int) -> Placement:
    """Rows for inputs of these lengths, int `[n]`, each 1 to `max_seq_length`.

    No row is longer than `max_seq_length` or has more than `max_sequences_per_row` inputs.
    """
    available = [
        np.flatnonzero(lengths == length)[::-1].tolist() for length in range(max_seq_length + 1)
    ]
    placement = Placement(*(np.zeros(len(lengths), np.int64) for _ in Placement._fields))
    row = 0
    histogram = np.bincount(lengths, minlength=max_seq_length + 1)
    for kind, repeats in _kinds(histogram, max_seq_length, max_sequences_per_row):
        for _ in range(repeats):
            offset = 0
            for number, length in enumerate(kind, 1):
                which = available[length].pop()
                placement.row[which], placement.offset[which], placement.number[which] = (
                    row,
                    offset,
                    number,
                )
                offset += length
            row += 1
    return placement


def _kinds(histogram: np.ndarray, longest: int, most: int) -> list[tuple[tuple[int, ...], int]]:
    """Rows as (lengths in the row, how many rows are so)."""
    # By room left, then by inputs in the row: the rows that may still take one.
    open_rows: list[dict[tuple[int, ...], int]] = [{} for _ in range(longest + 1)]
    closed: list[tuple[tuple[int, ...], int]] = []

    def put(kind: tuple[int, ...], count: int, room: int) -> None:
        if len(kind) == most or not room:
            closed.append((kind, count))
        else:
            open_rows[room][kind] = open_rows[room].get(kind, 0) + count

    for length in range(longest, 0, -1):
        left = int(histogram[length])
        room = length
        while left and room <= longest:
            if not open_rows[room]:
                room += 1
                continue
            kind, rows = open_rows[room].popitem()
            used = min(left, rows)
            if rows > used:
                open_rows[room][kind] = rows - used
            put((*kind, length), used, room - length)
            left -= used
            room = max(length, room - length)  # what is now fuller may take another
        while left:
            # As many of this length in new rows as fit together.
            together = min(most, longest // length)
            rows, rest = divmod(left, together)
            size = together if rows else rest
            rows = rows or 1
            put((length,) * size, rows, longest - size * length)
            left -= rows * size
    return closed + [item for rows in open_rows for item in rows.items()]
