"""Labels that only the validation or the test set has."""

import logging

import jax
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.classification.kind import ClassificationKind
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import ClassPrediction, LabelSetPrediction
from bertjax.tasks.classification.single_label import UNSEEN, SingleLabel
from bertjax.tasks.classification.unseen import check_classes
from bertjax.tasks.examples import TextExample
from tests.tasks.tiny import TOKENIZER

pytestmark = pytest.mark.quick

LABELS = ("a", "b")


def examples_of(*labels, classes=()):
    return [TextExample(str(i), "the cat", None, label, classes) for i, label in enumerate(labels)]


@pytest.mark.parametrize("task,labels,said", [
    (SingleLabel("t", LABELS), ("a", "z", "b", "y", "z"), "3 of 5 (z: 2, y: 1)"),
    (MultiLabel("t", LABELS), (("a", "z"), ("z", "y"), ()), "2 of 3 (z: 2, y: 1)"),
])  # fmt: skip
def test_they_are_said_once_with_their_number(caplog, task, labels, said):
    with caplog.at_level(logging.INFO, "bertjax"):
        task.encode(examples_of(*labels), TOKENIZER, 8, targets=True)
    assert caplog.messages == [
        f"t: examples with a label that training does not have: {said};"
        " it counts as wrong, and is left out of the loss"
    ]


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_loss_and_gradient_are_those_without_them(weights):
    task = SingleLabel("t", LABELS, label_smoothing=0.1, class_weights=weights)
    logits = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    labels = task.targets(examples_of("a", "z", "b", "z"))
    assert labels.tolist() == [0, UNSEEN, 1, UNSEEN]

    def loss(logits, labels):
        batch = {"labels": labels, "item_weights": np.ones(len(labels), np.float32)}
        sums = task.sums(logits, batch)
        assert sums["count"].shape == task.count(batch).shape
        return sums["loss"] / task.count(batch)

    value, gradient = jax.value_and_grad(loss)(logits, labels)
    kept = labels != UNSEEN
    expected, expected_gradient = jax.value_and_grad(loss)(logits[kept], labels[kept])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[kept], expected_gradient, rtol=1e-6)
    assert not gradient[~kept].any()


def test_of_several_classes_the_one_is_left_out_and_the_others_count():
    targets = MultiLabel("t", LABELS).targets(examples_of(("b", "z"), ("z",)))
    assert targets.tolist() == [[0, 1], [0, 0]]


def test_they_count_as_wrong_in_figures_tables_and_mistakes():
    task = SingleLabel("t", LABELS, ("accuracy", "f1_macro"))
    examples = examples_of("a", "a", "z", "b")
    predictions = [ClassPrediction(label, (0.9, 0.1)) for label in ("a", "a", "a", "b")]
    figures = task.figures(predictions, examples)
    # By scikit-learn's f1_score(average="macro"), which has the class z too.
    assert figures == {"accuracy": 0.75, "f1_macro": pytest.approx((0.8 + 1 + 0) / 3)}
    assert task.majority_baseline(examples) == 0.5
    tables = ClassificationKind().error_tables(task, predictions, examples)
    assert tables["confusion"] == {
        "labels": ["a", "b", "z"],
        "counts": [[2, 0, 0], [0, 1, 0], [1, 0, 0]],
    }
    assert [(error["expected"], error["predicted"]) for error in tables["errors"]] == [
        ("z", "a (90%)")
    ]
    several = MultiLabel("t", LABELS)
    sets = [LabelSetPrediction(("a",), (0.9, 0.1))]
    assert several.mistake_severity(sets[0], examples_of(("a", "z"))[0]) == 1.0
    assert several.figures(sets, examples_of(("a", "z")))["exact_match"] == 0


@pytest.mark.parametrize("labels,classes,message", [
    (("z", "y"), (), "task t: found the labels z, y alone, expected labels of training: 1, 2"),
    (("1", "2.0"), (), "task t: found the labels '2' and '2.0', expected one spelling of a number"),
    ((("0",), ("1", "2")), ("0", "1", "2"), "task t: found 3 places or columns of labels (0, 1, 2), expected those of"),
    ((("1",), ()), ("1",), "task t: found 1 places or columns of labels (1), expected those of training: 1, 2"),
])  # fmt: skip
def test_labels_of_another_kind_are_refused(labels, classes, message):
    with pytest.raises(UserError) as caught:
        check_classes("t", ("1", "2"), examples_of(*labels, classes=classes))
    assert str(caught.value).startswith(message)


def test_long_lists_of_labels_are_cut():
    labels = [str(number) for number in range(30)]
    with pytest.raises(UserError, match=r"17, 18, 19, \.\.\.") as caught:
        check_classes("t", labels, examples_of("z"))
    assert "20" not in str(caught.value)
