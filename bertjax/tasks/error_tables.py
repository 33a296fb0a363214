"""Tables of a model's mistakes for `evaluation.json`: worst errors, confusion, calibration."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.tasks.metrics import Bin, expected_calibration_error

MAX_ERRORS = 20
"""Mistakes that are shown."""
MAX_LABELS = 40
"""Labels of a confusion matrix that are shown."""
# Enough to recognize the example; the rest would only make the report large.
MAX_TEXT, MAX_ANSWER = 1000, 300


class Mistake(NamedTuple):
    """A wrong prediction, in words."""

    severity: float
    """A measure of how bad it is; mistakes are shown from the highest value down."""
    text: str
    """The input, in words."""
    expected: str
    predicted: str


def worst_mistakes(mistakes: Iterable[Mistake]) -> list[dict[str, str]]:
    """Return the `MAX_ERRORS` worst mistakes as JSON, the worst first.

    Mistakes of equal severity keep their order. Long texts are cut.
    """
    worst = sorted(mistakes, key=lambda mistake: -mistake.severity)[:MAX_ERRORS]
    return [
        {
            "text": mistake.text[:MAX_TEXT],
            "expected": mistake.expected[:MAX_ANSWER],
            "predicted": mistake.predicted[:MAX_ANSWER],
        }
        for mistake in worst
    ]


def confusion_table(labels: Sequence[str], counts: np.ndarray) -> dict[str, Any]:
    """Return `labels` and `counts` (lists; a row for each true label) of a confusion matrix.

    `counts` is int64 [C, C]. Of more than `MAX_LABELS` labels the most frequent true ones are kept,
    in the order of `labels`.
    """
    # Sorted by Python for a stable order: of equally frequent labels the first are kept.
    by_frequency = sorted(range(len(labels)), key=lambda label: -int(counts[label].sum()))
    kept = sorted(by_frequency[:MAX_LABELS])
    return {
        "labels": [labels[label] for label in kept],
        "counts": counts[np.ix_(kept, kept)].tolist(),
    }


def are_finite(probabilities: Iterable[Iterable[float]]) -> bool:
    """Return whether all predicted probabilities are finite; those of a diverged model are not."""
    # JSON has no NaN, and a histogram has no bin for it.
    return all(math.isfinite(value) for values in probabilities for value in values)


def calibration_table(bins: list[Bin]) -> dict[str, Any]:
    """Return `expected_calibration_error` and `bins`, a reliability table, as JSON."""
    return {
        "expected_calibration_error": expected_calibration_error(bins),
        "bins": [_bin_values(each) for each in bins],
    }


def _bin_values(each: Bin) -> dict[str, float]:
    return {name: float(value) for name, value in each._asdict().items()}
