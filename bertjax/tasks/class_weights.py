"""Weights of classes in the loss."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bertjax.errors import check


def balanced_weights(labels: Sequence[str], occurrences: Iterable[str]) -> tuple[float, ...]:
    """Return weights in inverse proportion to how often each of `labels` occurs in training.

    The weight of label c is n / (C n_c), as scikit-learn's "balanced" has it, where n counts all
    occurrences and C is the number of labels. So the mean weight of an occurrence is 1. Raises
    `UserError` for a label that does not occur.
    """
    counts = Counter(occurrences)
    for label in labels:
        check(
            counts[label] > 0,
            where=f"class_weights balanced, label {label}",
            found="no training example",
            expected="one or more",
        )
    total = sum(counts[label] for label in labels)
    return tuple(total / (len(labels) * counts[label]) for label in labels)
