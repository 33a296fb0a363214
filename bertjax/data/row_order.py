"""Which records a batch of a phase has, and which batches have a record."""

from typing import NamedTuple

import numpy as np

from bertjax.data.order import (
    BLOCK,
    MIXTURE,
    Reading,
    batch_record_numbers,
    mixture_record_numbers,
    unpermute,
)


class RowOrder(NamedTuple):
    """The order in which a run, or one of its phases, reads the records of its corpora."""

    sizes: tuple[int, ...]
    """Number of records of each corpus."""
    quotas: tuple[int, ...]
    """Rows of each corpus in a block of the mixture (`order.mixture_record_numbers`)."""
    reading: Reading
    batch_size: int
    seed: int

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (corpora, record numbers) of a step's batch; int64 `[batch_size]`."""
        rows = self.reading.rows(self.batch_size, step)
        places = self.reading.places
        if len(self.sizes) == 1:
            numbers = batch_record_numbers(self.sizes[0], rows, self.seed, places[0])
            return np.zeros_like(numbers), numbers
        quotas = np.array(self.quotas, np.int64)
        return mixture_record_numbers(self.sizes, quotas, rows, self.seed, places)

    def batches_with(
        self, corpus: int, record_numbers: np.ndarray, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (steps, record numbers) of the rows before step `end` that are these records.

        Both are int64 `[n]`, in the order of the rows; a record comes once in each epoch. Time
        depends on the number of the records and of the epochs, not on that of the steps.
        """
        first = self.reading.first_row
        last = first + (end - self.reading.begin) * self.batch_size
        rows, found = self._rows(corpus, record_numbers, first, last)
        inside = (rows >= first) & (rows < last)
        rows, found = rows[inside], found[inside]
        in_order = np.argsort(rows)
        steps = self.reading.begin + (rows - first) // self.batch_size
        return steps[in_order], found[in_order]

    def _rows(
        self, corpus: int, record_numbers: np.ndarray, first: int, last: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, record numbers), with all rows of the records from `first` to `last` - 1.

        There may be others among them.
        """
        size, place = self.sizes[corpus], self.reading.places[corpus]
        is_mixture = len(self.sizes) > 1
        drawn_first, drawn_last = first, last
        if is_mixture:
            quota = self.quotas[corpus]
            drawn_first, drawn_last = first // BLOCK * quota, -(-last // BLOCK) * quota
        epochs = range(
            (place.taken + drawn_first) // size, (place.taken + drawn_last - 1) // size + 1
        )
        drawn = [np.empty(0, np.int64)]
        for epoch in epochs:
            offsets = unpermute(record_numbers, size, (self.seed, epoch, *place.key))
            drawn.append(epoch * size + offsets - place.taken)
        of_all = np.concatenate(drawn)
        found = np.tile(record_numbers, len(epochs)).astype(np.int64)
        # Earlier phases have taken the others.
        known = of_all >= 0
        of_all, found = of_all[known], found[known]
        return (self._mixed(corpus, of_all) if is_mixture else of_all), found

    def _mixed(self, corpus: int, drawn: np.ndarray) -> np.ndarray:
        """Return the rows of a mixture that have the `drawn`-th rows of a corpus; int64."""
        quota = self.quotas[corpus]
        blocks = drawn // quota
        slots = drawn % quota + sum(self.quotas[:corpus])
        rows = np.empty_like(drawn)
        for block in np.unique(blocks):
            here = blocks == block
            offsets = unpermute(slots[here], BLOCK, (self.seed, int(block), MIXTURE))
            rows[here] = block * BLOCK + offsets
        return rows
