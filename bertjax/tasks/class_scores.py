"""Precision, recall and F1 of classes, their averages, and the table of them.

A value that would be 0/0 is 0, as scikit-learn's `zero_division=0`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bertjax.number_text import number_text

MEASURES = ("f1", "precision", "recall")
AVERAGES = ("micro", "macro", "weighted")
AVERAGED = {f"{name}_{kind}": (name, kind) for name in MEASURES for kind in AVERAGES}
"""The measure and the average of each averaged metric, such as `f1_macro`."""
COLUMNS = ("precision", "recall", "f1")
"""The measures in the order in which tables show them."""
MAX_LINES, MAX_LABEL = 40, 40
"""Maximum numbers of classes, and of characters of a class, in a table for a terminal."""


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of examples by class, int64 [C] each, or [] for several classes together."""

    hits: np.ndarray
    """Examples of the class that were predicted as such."""
    predicted: np.ndarray
    """Examples that were predicted to have the class."""
    support: np.ndarray
    """Examples that have the class."""

    def total(self) -> "ClassCounts":
        """Return the counts of all classes together."""
        return ClassCounts(self.hits.sum(), self.predicted.sum(), self.support.sum())

    def of(self, index: int) -> "ClassCounts":
        """Return the counts of one class."""
        return ClassCounts(self.hits[index], self.predicted[index], self.support[index])

    def occurring(self) -> "ClassCounts":
        """Return the counts of the classes that occur, truly or among the predictions."""
        occurs = (self.predicted > 0) | (self.support > 0)
        return ClassCounts(self.hits[occurs], self.predicted[occurs], self.support[occurs])


def count_classes(true: ArrayLike, predicted: ArrayLike, classes: int) -> ClassCounts:
    """Count class ids in 0..C-1, [N] each; C is `classes`."""
    true, predicted = np.asarray(true, np.int64), np.asarray(predicted, np.int64)
    return ClassCounts(
        np.bincount(true[true == predicted], minlength=classes),
        np.bincount(predicted, minlength=classes),
        np.bincount(true, minlength=classes),
    )


def count_decisions(true: ArrayLike, predicted: ArrayLike) -> ClassCounts:
    """Count sets of classes, bool [N, C] each."""
    true, predicted = np.asarray(true, bool), np.asarray(predicted, bool)
    return ClassCounts((true & predicted).sum(0), predicted.sum(0), true.sum(0))


def precision(counts: ClassCounts) -> np.ndarray:
    """Return the share of the predictions of a class that are right."""
    return counts.hits / np.maximum(counts.predicted, 1)


def recall(counts: ClassCounts) -> np.ndarray:
    """Return the share of the examples of a class that were predicted as such."""
    return counts.hits / np.maximum(counts.support, 1)


def f1(counts: ClassCounts) -> np.ndarray:
    """Return the harmonic mean of precision and recall."""
    return 2 * counts.hits / np.maximum(counts.predicted + counts.support, 1)


_FUNCTIONS: dict[str, Callable[[ClassCounts], np.ndarray]] = {
    "f1": f1,
    "precision": precision,
    "recall": recall,
}


def measure(name: str, counts: ClassCounts) -> np.ndarray:
    """Return one of `MEASURES` of each class, float64 [C]."""
    return _FUNCTIONS[name](counts)


def average(name: str, kind: str, counts: ClassCounts) -> float:
    """Return one of `MEASURES` in one of `AVERAGES` over the classes.

    micro: of all decisions together. macro: the mean over the classes. weighted: the mean over the
    classes, each weighted with its number of examples; 0 if there is none.
    """
    if kind == "micro":
        return float(measure(name, counts.total()))
    values = measure(name, counts)
    weights = counts.support if kind == "weighted" else np.ones_like(counts.support)
    return float(values @ weights / max(weights.sum(), 1))


def class_figure(
    name: str, labels: Sequence[str], counts: ClassCounts, averaged: ClassCounts | None = None
) -> float:
    """Return the metric `name`, as `f1_macro` or `f1:PER`, from the counts of the classes `labels`.

    Averages are over the counts `averaged`, by default `counts`. A measure without a class is that
    of the second class. That of a class that does not occur is 0.
    """
    if name in AVERAGED:
        return average(*AVERAGED[name], counts if averaged is None else averaged)
    base, colon, label = name.partition(":")
    if colon and label not in labels:
        return 0.0
    index = labels.index(label) if colon else 1
    return float(measure(base, counts.of(index)))


def text_table(table: Mapping[str, Any]) -> str:
    """Return the lines of `class_table` for a terminal, aligned; at most `MAX_LINES` classes."""
    classes = table["classes"]
    lines: list[tuple[str, ...]] = [("", *COLUMNS, "examples")]
    lines += [_cells(line, "") for line in classes[:MAX_LINES]]
    if len(classes) > MAX_LINES:
        lines.append((f"... {len(classes) - MAX_LINES} more", "", "", "", ""))
    lines += [_cells(line, " average") for line in table["averages"]]
    label_width = max(len(line[0]) for line in lines)
    text = []
    for label, *numbers in lines:
        cells = [label.ljust(label_width), *(number.rjust(9) for number in numbers)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _cells(line: Mapping[str, Any], suffix: str) -> tuple[str, ...]:
    values = [number_text(line[name], ".4f") for name in COLUMNS]
    return (line["label"][:MAX_LABEL] + suffix, *values, f"{line['examples']:,}")


def class_table(labels: Sequence[str], counts: ClassCounts) -> dict[str, Any]:
    """Return the table of classes as JSON: a line for each class, and for each average.

    A line has `label`, the measures, and `examples`, the number of examples that have the class.
    """
    by_measure = {name: measure(name, counts) for name in MEASURES}
    lines = []
    for index, label in enumerate(labels):
        values = {name: float(values[index]) for name, values in by_measure.items()}
        lines.append({"label": label, **values, "examples": int(counts.support[index])})
    averages = []
    for kind in AVERAGES:
        values = {name: average(name, kind, counts) for name in MEASURES}
        averages.append({"label": kind, **values, "examples": int(counts.support.sum())})
    return {"classes": lines, "averages": averages}
