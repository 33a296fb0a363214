"""Metrics that compare predictions with true labels, in NumPy; a metric that would be 0/0 is 0."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def accuracy(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the share of right predictions, in 0..1.

    The arrays are `[N]` classes, or `[N, C]` sets of classes. A set is right if it is right for
    each of the C classes.
    """
    right = np.asarray(true) == np.asarray(predicted)
    return _mean(right if right.ndim == 1 else right.all(1))


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """Return int64 `[C, C]`: the number of examples of class i that were predicted as class j.

    The arrays are `[N]` class ids in 0..C-1; C is `classes`.
    """
    pairs = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def matthews_correlation(true: ArrayLike, predicted: ArrayLike, classes: int = 2) -> float:
    """Return Matthews' correlation of class ids, in -1..1 (doi 10.1016/0005-2795(75)90109-9).

    For more than two classes it is Gorodkin's R_K (doi 10.1016/j.compbiolchem.2004.09.006), as in
    scikit-learn.
    """
    # float64: `spread` grows as the fourth power of the number of rows. In int64 it would overflow
    # from some ten thousand rows on.
    matrix = confusion_matrix(true, predicted, classes).astype(float)
    in_true, in_predicted, total = matrix.sum(1), matrix.sum(0), matrix.sum()
    spread = (total**2 - in_true @ in_true) * (total**2 - in_predicted @ in_predicted)
    if spread > 0:
        return float((total * np.trace(matrix) - in_true @ in_predicted) / np.sqrt(spread))
    # A constant has no correlation; scikit-learn gives 0 too.
    return 0.0


def pearson(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the linear correlation of `[N]` numbers, in -1..1."""
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    # SciPy gives NaN here, which could select no checkpoint. The values are compared, as rounding
    # may leave a constant with a deviation above 0.
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    # Each vector is divided by its own norm, because the product of two large norms could overflow.
    return float(np.clip(x / np.linalg.norm(x) @ (y / np.linalg.norm(y)), -1, 1))


def mean_squared_error(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean of the squared differences of `[N]` numbers."""
    return _mean(_differences(true, predicted) ** 2)


def mean_absolute_error(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean of the absolute differences of `[N]` numbers."""
    return _mean(np.abs(_differences(true, predicted)))


def spearman(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the correlation of the ranks of `[N]` numbers, in -1..1.

    Equal numbers all get the mean of their ranks.
    """
    # Not by the sum of squared differences of ranks, which is right only without equal numbers.
    return pearson(stats.rankdata(true), stats.rankdata(predicted))


class Bin(NamedTuple):
    """The predictions whose probability is in (low, high]; the first bin also includes 0."""

    low: float
    high: float
    predictions: int
    """Number of predictions in the bin."""
    confidence: float
    """Mean probability of the predictions; 0 for an empty bin."""
    accuracy: float
    """Share of the predictions that are right; 0 for an empty bin."""


def reliability(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Return the reliability table of predictions, with bins of equal width (arXiv 1706.04599).

    `probabilities` `[N]` has the probability of each prediction; `correct` `[N]` is true if the
    prediction is right.
    """
    probabilities, correct = np.asarray(probabilities, np.float64), np.asarray(correct, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    # "left": a probability equal to an edge belongs to the bin below it.
    of_bin = np.clip(np.searchsorted(edges, probabilities, side="left") - 1, 0, bins - 1)
    counts = np.bincount(of_bin, minlength=bins)
    divisors = np.maximum(counts, 1)
    confidence = np.bincount(of_bin, weights=probabilities, minlength=bins) / divisors
    right = np.bincount(of_bin, weights=correct, minlength=bins) / divisors
    table = []
    for i in range(bins):
        table.append(
            Bin(
                float(edges[i]),
                float(edges[i + 1]),
                int(counts[i]),
                float(confidence[i]),
                float(right[i]),
            )
        )
    return table


def expected_calibration_error(table: list[Bin]) -> float:
    """Return the mean of |confidence - accuracy| of the bins (arXiv 1706.04599, equation 3).

    Each bin is weighted with its number of predictions.
    """
    total = sum(each.predictions for each in table)
    distances = sum(each.predictions * abs(each.confidence - each.accuracy) for each in table)
    return distances / max(total, 1)


def _differences(true: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    return np.asarray(true, np.float64) - np.asarray(predicted, np.float64)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
