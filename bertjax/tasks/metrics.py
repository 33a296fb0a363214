"""Figures of predictions against what is true, in numpy; where a figure has no value (0/0) it is 0."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def accuracy(true: ArrayLike, predicted: ArrayLike) -> float:
    """The share of rows that are right: of `[N]` classes, or of `[N, C]` sets of classes with all
    of them right.
    """
    right = np.asarray(true) == np.asarray(predicted)
    return _mean(right if right.ndim == 1 else right.all(1))


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """int64 `[C, C]`: how many rows of class i (the row) were taken for class j (the column); ids
    are 0..C-1.
    """
    pairs = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def f1(true: ArrayLike, predicted: ArrayLike, positive: int = 1) -> float:
    """F1 of one class: the harmonic mean of its precision and recall, in 0..1."""
    return float(_f1(*_hits(np.asarray(true) == positive, np.asarray(predicted) == positive)))


def f1_macro(true: ArrayLike, predicted: ArrayLike) -> float:
    """The mean over classes of each one's F1; `[N, C]` bool. A class that neither holds has 0."""
    return _mean(_f1(*_hits(np.asarray(true, bool), np.asarray(predicted, bool))))


def f1_micro(true: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of all classes' decisions taken together; `[N, C]` bool."""
    hits, wrong, missed = _hits(np.asarray(true, bool), np.asarray(predicted, bool))
    return float(_f1(hits.sum(), wrong.sum(), missed.sum()))


def matthews_correlation(true: ArrayLike, predicted: ArrayLike, classes: int = 2) -> float:
    """Matthews' correlation in -1..1 of class ids (doi 10.1016/0005-2795(75)90109-9).

    For more than two classes it is Gorodkin's R_K (doi 10.1016/j.compbiolchem.2004.09.006), as in
    scikit-learn.
    """
    matrix = confusion_matrix(true, predicted, classes).astype(float)
    rows, columns, total = matrix.sum(1), matrix.sum(0), matrix.sum()
    spread = (total**2 - rows @ rows) * (total**2 - columns @ columns)
    return (
        float((total * np.trace(matrix) - rows @ columns) / np.sqrt(spread)) if spread > 0 else 0.0
    )


def pearson(true: ArrayLike, predicted: ArrayLike) -> float:
    """The linear correlation of `[N]` numbers, in -1..1."""
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    x, y = (z - z.mean() for z in (x, y))
    return float(np.clip(x / np.linalg.norm(x) @ (y / np.linalg.norm(y)), -1, 1))


def spearman(true: ArrayLike, predicted: ArrayLike) -> float:
    """The correlation of the ranks of `[N]` numbers, in -1..1; equal numbers share their mean rank."""
    return pearson(stats.rankdata(true), stats.rankdata(predicted))


class Bin(NamedTuple):
    """The predictions whose probability is in (low, high]; the first bin has 0 too."""

    low: float
    high: float
    predictions: int
    """How many they are."""
    confidence: float
    """The mean probability that they gave; 0 where there are none."""
    accuracy: float
    """The share of them that are right; 0 where there are none."""


def reliability(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """The reliability table of predictions: `[N]` probabilities of what was predicted, and whether
    it was right.

    Bins of equal width, as in arXiv 1706.04599.
    """
    probabilities, correct = np.asarray(probabilities, np.float64), np.asarray(correct, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    of_bin = np.clip(np.searchsorted(edges, probabilities, side="left") - 1, 0, bins - 1)
    counts = np.bincount(of_bin, minlength=bins)
    given, right = (
        np.bincount(of_bin, weights=x, minlength=bins) for x in (probabilities, correct)
    )
    some = np.maximum(counts, 1)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(given[i] / some[i]),
            float(right[i] / some[i]),
        )
        for i in range(bins)
    ]


def expected_calibration_error(table: list[Bin]) -> float:
    """The mean over predictions of their bin's distance between probability and accuracy (arXiv
    1706.04599, eq. 3).
    """
    total = sum(row.predictions for row in table)
    return sum(row.predictions * abs(row.confidence - row.accuracy) for row in table) / max(
        total, 1
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _hits(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(right, wrongly there, wrongly not there) of each class."""
    return (true & predicted).sum(0), (~true & predicted).sum(0), (true & ~predicted).sum(0)


def _f1(hits: np.ndarray, wrong: np.ndarray, missed: np.ndarray) -> np.ndarray:
    return 2 * hits / np.maximum(2 * hits + wrong + missed, 1)
