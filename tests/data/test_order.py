import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data.order import (
    BLOCK,
    batch_record_numbers,
    mixture_record_numbers,
    permute,
    quotas_of,
    unpermute,
    whole_run,
)


def batch_of(size, batch_size, step, seed):
    reading = whole_run(1)
    return batch_record_numbers(size, reading.rows(batch_size, step), seed, reading.places[0])


def mixture_of(sizes, quotas, batch_size, step, seed):
    reading = whole_run(len(sizes))
    return mixture_record_numbers(
        sizes, quotas, reading.rows(batch_size, step), seed, reading.places
    )


@given(size=st.integers(1, 3000), key=st.integers(0, 2**32))
def test_every_row_comes_once(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, (key, 0))), np.arange(size))


@given(size=st.integers(1, 2**40), seed=st.integers(0, 2**31))
def test_the_inverse_leads_back(size, seed):
    indices = np.random.default_rng(seed).integers(0, size, 50)
    images = permute(indices, size, (seed, 1))
    assert np.array_equal(unpermute(images, size, (seed, 1)), indices)
    assert np.array_equal(permute(unpermute(indices, size, (seed, 1)), size, (seed, 1)), indices)


@given(size=st.integers(1, 2**40), seed=st.integers(0, 2**31))
def test_large_sizes_stay_in_range_without_repeats(size, seed):
    indices = np.unique(np.random.default_rng(seed).integers(0, size, 100))
    images = permute(indices, size, (seed, 0))
    assert images.min() >= 0
    assert images.max() < size
    assert len(np.unique(images)) == len(indices)


def test_the_indices_that_were_asked_for_are_left_as_they_were():
    indices = np.arange(10, dtype=np.uint64)
    permute(indices, 10, (1,))
    assert np.array_equal(indices, np.arange(10))


def test_neighbors_are_spread_evenly():
    """Differences of neighbors follow the triangular law of independent draws.

    The statistic is chi-square over bins, of 9 degrees of freedom.
    """
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
    walked = np.concatenate([batch_of(size, batch_size, step, 5) for step in range(steps)])
    epochs = walked[: len(walked) // size * size].reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    if size > 6:
        assert len({tuple(epoch) for epoch in epochs}) > 0.9 * len(epochs)


def test_order_depends_on_the_seed_and_nothing_else():
    assert np.array_equal(batch_of(1000, 8, 77, 1), batch_of(1000, 8, 77, 1))
    assert not np.array_equal(batch_of(1000, 8, 77, 1), batch_of(1000, 8, 77, 2))


weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(weights)
def test_quotas_sum_to_the_block_and_follow_the_weights(weights):
    quotas = quotas_of(weights)
    assert quotas.sum() == BLOCK
    assert quotas.min() >= 1
    share = np.array(weights) / sum(weights)
    assert np.abs(quotas / BLOCK - share).max() < 10 / BLOCK


@given(
    sizes=st.lists(st.integers(1, 500), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=2)
def test_a_mixture_has_exact_shares_and_goes_through_each_corpus_evenly(sizes, seed, data):
    quotas = quotas_of(
        data.draw(st.lists(st.floats(0.1, 1), min_size=len(sizes), max_size=len(sizes)))
    )
    batch = BLOCK // 4
    drawn = [mixture_of(sizes, quotas, batch, step, seed) for step in range(4)]
    corpora, rows = (np.concatenate(column) for column in zip(*drawn, strict=True))
    assert np.array_equal(np.bincount(corpora, minlength=len(sizes)), quotas)
    for corpus, size in enumerate(sizes):
        times = np.bincount(rows[corpora == corpus], minlength=size)
        assert len(times) == size
        assert times.max() - times.min() <= 1


def test_a_mixtures_batches_do_not_depend_on_their_size_or_start():
    sizes, quotas = [1000, 77], quotas_of([3, 1])
    whole = [
        np.concatenate(x)
        for x in zip(*(mixture_of(sizes, quotas, 8, s, 5) for s in range(64)), strict=True)
    ]
    large = mixture_of(sizes, quotas, 512, 0, 5)
    assert all(np.array_equal(a, b) for a, b in zip(whole, large, strict=True))
    assert np.bincount(whole[0])[1] / 512 == pytest.approx(0.25, abs=0.08)
    far = mixture_of(sizes, quotas, 8, 10**9, 5)
    assert far[1].min() >= 0
    assert (far[1] < np.array(sizes)[far[0]]).all()
