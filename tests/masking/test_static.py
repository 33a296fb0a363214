import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.masking.static import greedy, unmask
from tests.masking.test_selection import config, random_rows, with_numpy


def plain_greedy(sizes, order, budget):
    """`bertjax.masking.selection.GreedySelection` as its docstring says it: unit by unit."""
    taken = np.zeros(sizes.shape, bool)
    for row, columns in enumerate(order):
        left = budget[row, 0]
        for column in columns:
            if 0 < sizes[row, column] <= left:
                taken[row, column] = True
                left -= sizes[row, column]
    return taken


def drawn_units(seed, count, length, largest):
    """Sizes of units, many of them 0, a random order, and a budget for each row, some of them 0."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, largest + 1, (count, length)).astype(np.int32)
    order = rng.permuted(np.tile(np.arange(length, dtype=np.int32), (count, 1)), axis=1)
    return sizes, order, rng.integers(0, 2 * length, (count, 1)).astype(np.int32)


@given(seed=st.integers(0, 2**31), length=st.integers(1, 30), largest=st.integers(0, 12))
def test_greedy_is_the_plain_loop(seed, length, largest):
    units = drawn_units(seed, 20, length, largest)
    assert np.array_equal(greedy(*units), plain_greedy(*units))


def test_a_smaller_later_unit_is_taken_where_a_larger_earlier_one_does_not_fit():
    sizes = np.array([[5, 2, 4, 0, 1, 1]], np.int32)
    order = np.array([[1, 3, 0, 2, 5, 4]], np.int32)
    assert greedy(sizes, order, np.array([[3]], np.int32)).tolist() == [
        [False, True, False, False, False, True]
    ]


@given(
    seed=st.integers(0, 2**31), masking=st.sampled_from(["token", "whole_word", "ngram", "span"])
)
def test_unmask_restores_the_rows(seed, masking):
    batch = random_rows(seed, 12, 40)
    masked = with_numpy(batch, config(masking, 0.3, 50), seed)
    restored = unmask(masked)
    assert restored.keys() == batch.keys()
    assert all(np.array_equal(restored[name], batch[name]) for name in batch)


def test_masks_repeat_with_the_seed_and_differ_with_another():
    batch = random_rows(0, 12, 40)
    first, again, other = (
        with_numpy(batch, config("span"), seed)["masked_lm_positions"] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
