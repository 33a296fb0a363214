"""Mistakes of the three types of label."""

import pytest

from bertjax.tasks.classification.kind import ClassificationKind
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from tests.tasks.classification.test_labels import examples_of


def mistakes(task, predictions, examples):
    return [
        (mistake.text, mistake.severity)
        for mistake in ClassificationKind().mistakes(task, predictions, examples)
    ]


def test_a_class_is_the_worse_the_less_probable_the_true_one_is():
    task = SingleLabel("t", ("a", "b"))
    examples = examples_of("a", "a", "b", "a")
    predictions = [
        ClassPrediction("a" if p >= 0.5 else "b", (p, 1 - p)) for p in (0.4, 0.1, 0.7, 0.9)
    ]
    result = mistakes(task, predictions, examples)
    assert [text for text, _ in result] == ["text 0", "text 1", "text 2"]
    assert [severity for _, severity in result] == pytest.approx([0.6, 0.9, 0.7])


def test_mistakes_of_numbers_and_of_several_classes():
    predictions = [NumberPrediction(value) for value in (1.0, 3.0, 2.0)]
    result = mistakes(Regression("t"), predictions, examples_of(1.5, 1.0, 2.0))
    assert result == [("text 0", 0.5), ("text 1", 2.0)]
    predictions = [
        LabelSetPrediction(("a",), (0.8, 0.3)),
        LabelSetPrediction((), (0.1, 0.4)),
        LabelSetPrediction(("b",), (0, 0.6)),
    ]
    result = mistakes(
        MultiLabel("t", ("a", "b")), predictions, examples_of(("a", "b"), ("a",), ("b",))
    )
    assert result == [("text 0", pytest.approx(0.7)), ("text 1", pytest.approx(0.9))]
