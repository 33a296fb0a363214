import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks import metrics

CLASSES = st.integers(2, 4)
PAIRS = CLASSES.flatmap(
    lambda c: st.tuples(
        st.just(c), st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1)
    )
)
NUMBERS = st.lists(
    st.tuples(st.integers(-9, 9), st.floats(-5, 5, width=16)), min_size=1, max_size=30
)


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sklearn.metrics")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(PAIRS)
def test_figures_of_classes_are_scikit_learns(reference, drawn):
    classes, pairs = drawn
    true, predicted = np.array(pairs).T
    labels = np.arange(classes)
    assert metrics.accuracy(true, predicted) == pytest.approx(
        reference.accuracy_score(true, predicted)
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(true, predicted, classes),
        reference.confusion_matrix(true, predicted, labels=labels),
    )
    # scikit-learn's has a warning of its own where there is one class only.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.matthews_corrcoef(true, predicted)
    assert metrics.matthews_correlation(true, predicted, classes) == pytest.approx(
        expected, abs=1e-12
    )


@given(
    st.integers(1, 4).flatmap(
        lambda c: st.lists(st.lists(st.booleans(), min_size=2 * c, max_size=2 * c), min_size=1)
    )
)
def test_a_set_of_classes_is_right_if_all_of_them_are(rows):
    both = np.array(rows)
    true, predicted = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    assert metrics.accuracy(true, predicted) == pytest.approx(np.mean((true == predicted).all(1)))


@given(NUMBERS)
def test_errors_of_numbers_are_scikit_learns(reference, pairs):
    true, predicted = np.array(pairs, np.float64).T
    assert metrics.mean_squared_error(true, predicted) == pytest.approx(
        reference.mean_squared_error(true, predicted)
    )
    assert metrics.mean_absolute_error(true, predicted) == pytest.approx(
        reference.mean_absolute_error(true, predicted)
    )


@given(NUMBERS)
def test_correlations_are_scipys(pairs):
    stats = pytest.importorskip("scipy.stats")
    true, predicted = np.array(pairs, np.float64).T
    if len(pairs) < 3 or np.ptp(true) < 1e-3 or np.ptp(predicted) < 1e-3:
        return
    assert metrics.pearson(true, predicted) == pytest.approx(
        stats.pearsonr(true, predicted)[0], abs=1e-9
    )
    assert metrics.spearman(true, predicted) == pytest.approx(
        stats.spearmanr(true, predicted)[0], abs=1e-9
    )


@pytest.mark.quick
def test_a_constant_prediction_gives_0_and_no_warning():
    true, constant = np.array([0, 1, 1]), np.zeros(3, int)
    assert metrics.matthews_correlation(true, constant) == 0
    assert metrics.matthews_correlation(constant, true) == 0
    for correlation in (metrics.pearson, metrics.spearman):
        assert correlation([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) == 0
        assert correlation([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]) == 0
        assert correlation([1.0], [1.0]) == 0
        assert correlation([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == pytest.approx(1)
    assert metrics.accuracy([], []) == 0


@pytest.mark.quick
def test_many_rows_do_not_overflow():
    true = np.arange(400_000) % 3
    assert metrics.matthews_correlation(true, true, 3) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.integers(1, 12))
def test_calibration_is_that_of_a_plain_loop_over_bins(pairs, bins):
    probabilities, correct = [p for p, _ in pairs], [c for _, c in pairs]
    table = metrics.reliability(probabilities, correct, bins)
    assert len(table) == bins
    assert sum(row.predictions for row in table) == len(pairs)
    error = 0.0
    for i, row in enumerate(table):
        inside = [(p, c) for p, c in pairs if row.low < p <= row.high or (i == 0 and p == 0)]
        assert row.predictions == len(inside)
        assert row.low == pytest.approx(i / bins)
        if inside:
            confidence, accuracy = np.mean(np.array(inside, float), axis=0)
            assert (row.confidence, row.accuracy) == (
                pytest.approx(confidence),
                pytest.approx(accuracy),
            )
            error += len(inside) * abs(confidence - accuracy) / len(pairs)
    assert metrics.expected_calibration_error(table) == pytest.approx(error, abs=1e-9)


@pytest.mark.quick
def test_the_calibration_error_of_a_known_case():
    table = metrics.reliability([0.95, 0.95, 0.65, 0.65], [True, False, True, True])
    assert metrics.expected_calibration_error(table) == pytest.approx((0.45 + 0.35) / 2)
    assert [row.predictions for row in table] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
