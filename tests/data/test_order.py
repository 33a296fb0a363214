import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.order import batch_rows, permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**32))
def test_every_row_comes_once(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, (key, 0))), np.arange(size))


@given(size=st.integers(1, 2**40), seed=st.integers(0, 2**31))
def test_large_sizes_stay_in_range_without_repeats(size, seed):
    asked = np.unique(np.random.default_rng(seed).integers(0, size, 100))
    found = permute(asked, size, (seed, 0))
    assert found.min() >= 0
    assert found.max() < size
    assert len(np.unique(found)) == len(asked)


def test_the_indices_that_were_asked_for_are_left_as_they_were():
    asked = np.arange(10, dtype=np.uint64)
    permute(asked, 10, (1,))
    assert np.array_equal(asked, np.arange(10))


def test_neighbours_are_spread_evenly():
    """Differences of neighbours, binned, against the triangular law of independent draws: chi-square of 9 bins."""
    size = 100_000
    order = permute(np.arange(size), size, (1, 2)) / size
    counts, edges = np.histogram(np.diff(order), 10, (-1, 1))

    def share(x):
        return 0.5 + x - np.sign(x) * x**2 / 2

    expected = (share(edges[1:]) - share(edges[:-1])) * (size - 1)
    assert ((counts - expected) ** 2 / expected).sum() < 30


@pytest.mark.parametrize("size,batch_size", [(10, 4), (7, 7), (5, 13), (100, 1)])
def test_batches_walk_through_epochs_that_each_hold_every_row(size, batch_size):
    steps = 3 * size
    walked = np.concatenate([batch_rows(size, batch_size, step, 5) for step in range(steps)])
    epochs = walked[: len(walked) // size * size].reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    if size > 6:
        assert len({tuple(epoch) for epoch in epochs}) > 0.9 * len(epochs)


def test_order_depends_on_the_seed_and_nothing_else():
    assert np.array_equal(batch_rows(1000, 8, 77, 1), batch_rows(1000, 8, 77, 1))
    assert not np.array_equal(batch_rows(1000, 8, 77, 1), batch_rows(1000, 8, 77, 2))
