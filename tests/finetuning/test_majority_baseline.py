import numpy as np
import pytest

from bertjax.finetuning.majority_baseline import baseline
from bertjax.tasks.classification.task import Classification
from bertjax.tasks.examples import ChoiceExample, TaggedExample, TextExample
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.tagging.task import Tagging


def texts(*labels):
    return [TextExample(str(n), "text", label=label) for n, label in enumerate(labels)]


def test_the_baseline_of_classes_is_the_commonest_one():
    task = Classification("t", ("a", "b", "c"))
    assert baseline(task, texts("b", "a", "b", "c", "b")) == pytest.approx(0.6)
    assert baseline(task, texts("a")) == 1.0


def test_of_other_figures_it_is_the_best_that_one_class_gives():
    both = texts("a", "b", "b", "a")
    assert baseline(Classification("t", ("a", "b"), metrics=("f1",)), both) == pytest.approx(2 / 3)
    assert baseline(Classification("t", ("a", "b"), metrics=("matthews_correlation",)), both) == 0.0


def test_the_baseline_of_choices_is_the_commonest_place():
    examples = [
        ChoiceExample(str(n), "c", ("x", "y", "z"), label=label)
        for n, label in enumerate((0, 2, 2, 1))
    ]
    assert baseline(Choice("t", 3), examples) == 0.5


def test_where_a_constant_gets_nothing_it_is_0():
    assert baseline(Classification("t", (), "number"), texts(1.0, 2.0)) == 0.0
    assert baseline(Classification("t", ("a",), "classes"), texts(("a",), ())) == 0.0
    assert baseline(Tagging("t", ("O", "B-A")), [TaggedExample("0", ("x",), ("O",))]) == 0.0


def test_the_examples_may_be_any_sequence():
    assert baseline(
        Classification("t", ("a", "b")), np.array(texts("a", "b", "a"), object)
    ) == pytest.approx(2 / 3)
