"""Precision, recall and F1 of classes, against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.class_scores import (
    AVERAGES,
    MEASURES,
    average,
    class_table,
    count_classes,
    count_decisions,
    measure,
)

# Five classes at most: few examples of them leave classes out of the true ones, of the predicted
# ones, or of both.
CLASSES = st.integers(2, 5)
PAIRS = CLASSES.flatmap(
    lambda c: st.tuples(
        st.just(c),
        st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=30),
    )
)
SETS = st.integers(2, 4).flatmap(
    lambda c: st.lists(
        st.lists(st.booleans(), min_size=2 * c, max_size=2 * c), min_size=1, max_size=20
    )
)
EXAMPLES = [
    (np.array(true), np.array(predicted))
    for true, predicted in [
        ([0, 0, 1], [0, 0, 0]),
        ([0, 0, 0], [1, 1, 1]),
        ([0, 0], [0, 0]),
        ([2, 0], [0, 2]),
        ([1], [1]),
    ]
]


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sklearn.metrics")


def scores_of(reference, true, predicted, **options):
    """Precision, recall and F1 by scikit-learn, by our names."""
    with warnings.catch_warnings():
        # On drawn sets without any class it warns although zero_division is given.
        warnings.simplefilter("ignore")
        found = reference.precision_recall_fscore_support(
            true, predicted, zero_division=0, **options
        )
    return dict(zip(("precision", "recall", "f1"), found[:3], strict=True))


def check_against(reference, true, predicted, classes):
    counts = count_classes(true, predicted, classes)
    by_class = scores_of(reference, true, predicted, labels=np.arange(classes))
    for name in MEASURES:
        np.testing.assert_allclose(measure(name, counts), by_class[name], atol=1e-12)
        for kind in AVERAGES:
            # Without `labels`: over the classes that occur, as most people call it.
            expected = scores_of(reference, true, predicted, average=kind)[name]
            assert average(name, kind, counts.occurring()) == pytest.approx(expected, abs=1e-12)


@given(PAIRS)
def test_measures_and_averages_of_classes_are_scikit_learns(reference, drawn):
    classes, pairs = drawn
    check_against(reference, *np.array(pairs).T, classes)


@pytest.mark.parametrize("true,predicted", EXAMPLES)
def test_classes_that_are_never_predicted_or_never_true_count_as_in_scikit_learn(
    reference, true, predicted
):
    check_against(reference, true, predicted, 3)


@given(SETS)
def test_measures_and_averages_of_sets_of_classes_are_scikit_learns(reference, rows):
    both = np.array(rows)
    true, predicted = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    counts = count_decisions(true, predicted)
    by_class = scores_of(reference, true, predicted)
    for name in MEASURES:
        np.testing.assert_allclose(measure(name, counts), by_class[name], atol=1e-12)
        for kind in AVERAGES:
            expected = scores_of(reference, true, predicted, average=kind)[name]
            assert average(name, kind, counts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.quick
def test_the_table_is_the_hand_worked_one():
    # Three of four a are found; of two b one; c is predicted once and never true.
    counts = count_classes([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2], 3)
    table = class_table(["a", "b", "c"], counts)
    assert table["classes"] == [
        {"label": "a", "f1": pytest.approx(6 / 7), "precision": 1.0, "recall": 0.75, "examples": 4},
        {"label": "b", "f1": 0.5, "precision": 0.5, "recall": 0.5, "examples": 2},
        {"label": "c", "f1": 0.0, "precision": 0.0, "recall": 0.0, "examples": 0},
    ]
    micro, macro, weighted = table["averages"]
    assert micro == {
        "label": "micro", "f1": pytest.approx(4 / 6), "precision": pytest.approx(4 / 6),
        "recall": pytest.approx(4 / 6), "examples": 6,
    }  # fmt: skip
    assert macro["f1"] == pytest.approx((6 / 7 + 0.5) / 3)
    assert weighted["recall"] == pytest.approx((4 * 0.75 + 2 * 0.5) / 6)


@pytest.mark.quick
def test_no_example_gives_zeros():
    counts = count_classes([], [], 2)
    for name in MEASURES:
        assert [average(name, kind, counts.occurring()) for kind in AVERAGES] == [0, 0, 0]
