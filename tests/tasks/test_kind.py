"""What the kinds of task share: majority-class baselines."""

import numpy as np
import pytest

from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import ChoiceExample, TaggedExample, TextExample
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.registry import kind_of
from bertjax.tasks.tagging.task import Tagging


def baseline(task, examples):
    return kind_of(task).majority_baseline(task, examples)


def texts(*labels):
    return [TextExample(str(n), "text", label=label) for n, label in enumerate(labels)]


def test_the_baseline_of_classes_is_the_commonest_one():
    task = SingleLabel("t", ("a", "b", "c"))
    assert baseline(task, texts("b", "a", "b", "c", "b")) == pytest.approx(0.6)
    assert baseline(task, texts("a")) == 1.0


def test_of_other_figures_it_is_the_best_that_one_class_gives():
    both = texts("a", "b", "b", "a")
    assert baseline(SingleLabel("t", ("a", "b"), metrics=("f1",)), both) == pytest.approx(2 / 3)
    assert baseline(SingleLabel("t", ("a", "b"), metrics=("matthews_correlation",)), both) == 0.0


def test_the_baseline_of_choices_is_the_commonest_place():
    examples = [
        ChoiceExample(str(n), "c", ("x", "y", "z"), label=label)
        for n, label in enumerate((0, 2, 2, 1))
    ]
    assert baseline(Choice("t", 3), examples) == 0.5


def test_where_a_constant_gets_nothing_it_is_0():
    assert baseline(Regression("t"), texts(1.0, 2.0)) == 0.0
    assert baseline(MultiLabel("t", ("a",)), texts(("a",), ())) == 0.0
    assert baseline(Tagging("t", ("O", "B-A")), [TaggedExample("0", ("x",), ("O",))]) == 0.0


def test_the_examples_may_be_any_sequence():
    assert baseline(
        SingleLabel("t", ("a", "b")), np.array(texts("a", "b", "a"), object)
    ) == pytest.approx(2 / 3)
