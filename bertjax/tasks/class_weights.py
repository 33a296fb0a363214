"""Weights of classes in the loss."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bertjax.errors import check


def balanced_weights(labels: Sequence[str], occurrences: Iterable[str]) -> tuple[float, ...]:
    """Return a weight for each label, inversely proportional to its number of occurrences.

    The weight of label c is n / (C n_c), as with "balanced" in scikit-learn. n_c is the number of
    occurrences of c, n the number of all occurrences, and C the number of labels. The mean weight
    of an occurrence is therefore 1. Raises `UserError` for a label that does not occur.
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
