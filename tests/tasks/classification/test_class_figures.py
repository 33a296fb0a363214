"""Figures of drawn predictions of classes, by their names in `finetune.metric`, against
scikit-learn.
"""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TextExample
from bertjax.tasks.registry import kind_of

LABELS = ("a", "b", "c:d/e")
# A class that only the examples have: models cannot predict it.
UNKNOWN = "only in validation"
TRUE = (*LABELS, UNKNOWN)


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("sklearn.metrics")


def all_metrics(task):
    """The task with every metric that it may have."""
    kind = kind_of(task)
    names = []
    for metric in kind.task_metrics(task):
        if metric.of_class:
            names += [f"{metric.name}:{label}" for label in kind.metric_classes(task)]
        else:
            names.append(metric.name)
    return kind.with_metrics(task, tuple(names))


def examples_of(labels):
    return [TextExample(str(n), "text", label=label) for n, label in enumerate(labels)]


def scores_of(reference, *sets, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = reference.precision_recall_fscore_support(*sets, zero_division=0, **options)
    return dict(zip(("precision", "recall", "f1"), found[:3], strict=True))


def matthews_of(reference, *sets):
    with warnings.catch_warnings():
        # Of a single class there is a warning.
        warnings.simplefilter("ignore")
        return reference.matthews_corrcoef(*sets)


def check_averages(reference, figures, *sets, **options):
    for average in ("micro", "macro", "weighted"):
        for name, value in scores_of(reference, *sets, average=average, **options).items():
            assert figures[f"{name}_{average}"] == pytest.approx(value, abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from(TRUE), st.sampled_from(LABELS)), min_size=1, max_size=25))
def test_every_figure_of_one_class_is_scikit_learns(reference, pairs):
    true, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    task = all_metrics(SingleLabel("t", LABELS))
    figures = task.figures([ClassPrediction(label) for label in predicted], examples_of(true))
    check_averages(reference, figures, true, predicted)
    for name, values in scores_of(reference, true, predicted, labels=list(LABELS)).items():
        for label, value in zip(LABELS, values, strict=True):
            assert figures[f"{name}:{label}"] == pytest.approx(value, abs=1e-12)
    assert figures["accuracy"] == pytest.approx(reference.accuracy_score(true, predicted))
    expected = matthews_of(reference, true, predicted)
    assert figures["matthews_correlation"] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=15))
def test_figures_without_a_class_are_those_of_the_second_of_two(reference, pairs):
    true, predicted = np.array(pairs).T
    task = all_metrics(SingleLabel("t", ("no", "yes")))
    words = np.array(["no", "yes"])
    figures = task.figures(
        [ClassPrediction(str(label)) for label in words[predicted.astype(int)]],
        examples_of(words[true.astype(int)].tolist()),
    )
    expected = scores_of(reference, true, predicted, average="binary", pos_label=True)
    for name, value in expected.items():
        assert figures[name] == figures[f"{name}:yes"] == pytest.approx(value, abs=1e-12)


SETS = st.sets(st.sampled_from(TRUE)).map(lambda labels: tuple(sorted(labels)))
PREDICTED_SETS = st.sets(st.sampled_from(LABELS)).map(lambda labels: tuple(sorted(labels)))


@given(st.lists(st.tuples(SETS, PREDICTED_SETS), min_size=1, max_size=15))
def test_every_figure_of_several_classes_is_scikit_learns(reference, pairs):
    true, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    task = all_metrics(MultiLabel("t", LABELS))
    figures = task.figures([LabelSetPrediction(labels) for labels in predicted], examples_of(true))
    # The class that training does not have is a column only where an example has it.
    names = TRUE if any(UNKNOWN in labels for labels in true) else LABELS
    matrices = []
    for sets in (true, predicted):
        matrices.append(np.array([[name in labels for name in names] for labels in sets]))
    check_averages(reference, figures, *matrices)
    for name, values in scores_of(reference, *matrices).items():
        for label, value in zip(LABELS, values[: len(LABELS)], strict=True):
            assert figures[f"{name}:{label}"] == pytest.approx(value, abs=1e-12)
    assert figures["exact_match"] == pytest.approx(reference.accuracy_score(*matrices))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=15))
def test_errors_of_numbers_are_scikit_learns_and_lower_ones_have_the_higher_score(reference, pairs):
    true, predicted = np.array(pairs, float).T
    task = kind_of(Regression("t")).with_metrics(Regression("t"), ("mse", "mae"))
    figures = task.figures([NumberPrediction(value) for value in predicted], examples_of(true))
    assert list(figures) == ["mse", "mae", "pearson", "spearman"]
    assert figures["mse"] == pytest.approx(reference.mean_squared_error(true, predicted))
    assert figures["mae"] == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert task.metric_scale.score(figures["mse"]) == -figures["mse"]


@pytest.mark.quick
def test_the_table_of_classes_has_those_that_occur_and_is_scikit_learns(reference):
    true = ["a", "a", "b", UNKNOWN, "a"]
    predicted = ["a", "b", "b", "a", "a"]
    task = SingleLabel("t", LABELS)
    table = task.class_table([ClassPrediction(label) for label in predicted], examples_of(true))
    expected = reference.classification_report(true, predicted, output_dict=True, zero_division=0)
    assert [line["label"] for line in table["classes"]] == ["a", "b", UNKNOWN]
    for line in table["classes"]:
        other = expected[line["label"]]
        found = [line["precision"], line["recall"], line["f1"], line["examples"]]
        names = ("precision", "recall", "f1-score", "support")
        assert found == pytest.approx([other[name] for name in names])
    _, macro, weighted = table["averages"]
    assert macro["f1"] == pytest.approx(expected["macro avg"]["f1-score"])
    assert weighted["f1"] == pytest.approx(expected["weighted avg"]["f1-score"])
