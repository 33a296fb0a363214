"""Tables of a model's mistakes for `evaluation.json`: worst errors, confusion, calibration."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.tasks.metrics import Bin, expected_calibration_error

MAX_ERRORS = 20
"""Maximum number of mistakes that are shown."""
MAX_LABELS = 40
"""Maximum number of labels in a confusion matrix that is shown."""
# Maximum numbers of characters: enough to recognize the example, without making the report large.
MAX_TEXT, MAX_ANSWER = 1000, 300


class Mistake(NamedTuple):
    """A wrong prediction as text."""

    severity: float
    """Measure of how wrong the prediction is; mistakes are shown in descending order of it."""
    text: str
    """The input as text."""
    expected: str
    predicted: str


def worst_mistakes(mistakes: Iterable[Mistake]) -> list[dict[str, str]]:
    """Return the `MAX_ERRORS` worst mistakes as JSON, the worst first.

    Mistakes of equal severity keep their order. Long texts are truncated.
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


def commonest(counts: Sequence[int]) -> list[int]:
    """Return the indices of the `MAX_LABELS` largest counts, ascending; of equal ones the first."""
    # Python's sort is stable.
    by_count = sorted(range(len(counts)), key=lambda index: -counts[index])
    return sorted(by_count[:MAX_LABELS])


def confusion_table(labels: Sequence[str], counts: np.ndarray) -> dict[str, Any]:
    """Return a confusion matrix as JSON: `labels`, and `counts` with a list for each true label.

    `counts` is int64 [C, C]. If there are more than `MAX_LABELS` labels, only the `MAX_LABELS` most
    frequent true labels are kept, in the order of `labels`.
    """
    kept = commonest(counts.sum(axis=1).tolist())
    return {
        "labels": [labels[label] for label in kept],
        "counts": counts[np.ix_(kept, kept)].tolist(),
    }


def are_finite(probabilities: Iterable[Iterable[float]]) -> bool:
    """Return whether all predicted probabilities are finite; a diverged model predicts NaN."""
    # NaN cannot be written as JSON, and no bin of a histogram holds it.
    return all(math.isfinite(value) for values in probabilities for value in values)


def calibration_table(bins: list[Bin]) -> dict[str, Any]:
    """Return `expected_calibration_error` and `bins`, a reliability table, as JSON."""
    return {
        "expected_calibration_error": expected_calibration_error(bins),
        "bins": [_bin_values(each) for each in bins],
    }


def _bin_values(each: Bin) -> dict[str, float]:
    return {name: float(value) for name, value in each._asdict().items()}
