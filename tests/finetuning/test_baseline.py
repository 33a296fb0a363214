"""What a run says of a score that one answer for all examples gets too."""

import logging

import pytest

from bertjax.finetuning.baseline import baseline_of, is_constant, is_failed, warn_of_baseline
from bertjax.finetuning.evaluate import Split
from bertjax.finetuning.finetune import Prepared
from bertjax.finetuning.sweep_grid import Cell, Result, Setting, summarize
from bertjax.tasks.classification.predictions import ClassPrediction
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kind import Entry
from bertjax.tasks.registry import OpenedTask

EXAMPLES = [TextExample(str(n), "text", label=label) for n, label in enumerate("aaab")]
TASK = SingleLabel("t", ("a", "b"))
PREPARED = Prepared(
    (OpenedTask(Entry("t", "classification", None), TASK, {}),),
    {},
    (Split("t", "", EXAMPLES, None),),
)
pytestmark = pytest.mark.quick


@pytest.mark.parametrize("score,said", [
    (0.8, ""),
    (0.75, "the score is 0.7500, not above 0.7500, which"),
    (0.5, "the score is 0.5000, not above 0.7500, which"),
    (None, "the score is not finite, not above 0.7500, which"),
])  # fmt: skip
def test_a_score_that_is_not_above_the_baseline_is_said(caplog, score, said):
    with caplog.at_level(logging.WARNING, "bertjax"):
        warn_of_baseline(PREPARED.baseline, score)
    assert len(caplog.messages) == bool(said)
    assert "".join(caplog.messages).startswith(said)


@pytest.mark.parametrize("metric,labels,baseline", [
    ("recall", "abbb", 0.0),  # "b" for all gets 1, as a perfect model does
    ("recall:a", "aaab", 0.0),
    ("recall_macro", "aaab", 0.5),
    ("accuracy", "aaaa", None),
    ("f1_macro", "bbbb", None),
    ("recall:a", "aaaa", None),
    ("matthews_correlation", "aaaa", None),  # 0 for every model, as is the next
    ("f1", "aaaa", None),
])  # fmt: skip
def test_a_perfect_model_never_fails(caplog, metric, labels, baseline):
    examples = [TextExample(str(n), "text", label=label) for n, label in enumerate(labels)]
    task = SingleLabel("t", ("a", "b"), metrics=(metric,))
    assert baseline_of([task], {"t": examples}) == baseline
    with caplog.at_level(logging.WARNING, "bertjax"):
        warn_of_baseline(baseline, 1.0)
    assert caplog.messages == []
    assert not is_failed(1.0, baseline)
    assert is_failed(None, baseline)


@pytest.mark.parametrize("metric,predicted,constant", [
    ("recall", "bbbb", True),
    ("recall:b", "bbbb", True),
    ("recall:b", "bbba", False),
    ("recall:b", "abba", False),
    ("recall:a", "aaaa", True),
    ("recall:a", "aaab", False),
    ("precision:b", "bbbb", False),
    ("accuracy", "bbbb", False),
])  # fmt: skip
def test_one_answer_that_has_the_best_recall_is_a_failed_run(caplog, metric, predicted, constant):
    examples = [TextExample(str(n), "text", label=label) for n, label in enumerate("abba")]
    task = SingleLabel("t", ("a", "b"), metrics=(metric,))
    answers = [ClassPrediction(each, (0.5, 0.5)) for each in predicted]
    figures = task.figures(answers, examples)
    assert is_constant([task], {"t": examples}, figures) == constant
    other = SingleLabel("u", ("a", "b"))
    several = {f"{name}/t": value for name, value in figures.items()} | {"accuracy/u": 1.0}
    assert not is_constant([task, other], {"t": examples, "u": examples}, several)
    with caplog.at_level(logging.WARNING, "bertjax"):
        warn_of_baseline(0.0, 1.0, constant=constant)
    assert len(caplog.messages) == constant
    cell = Cell(Setting(8, 1e-3, 1), 0)
    (summary,) = summarize([Result(cell, 1.0, constant), Result(cell, 0.9)], baseline=0.0)
    assert summary.failed == constant


def test_an_error_of_0_by_a_constant_leaves_no_baseline():
    same = [TextExample(str(n), "text", label=2.0) for n in range(3)]
    assert baseline_of([Regression("t", metrics=("mse",))], {"t": same}) is None
    assert baseline_of([Regression("t", metrics=("pearson",))], {"t": same}) is None


def test_without_a_baseline_only_a_score_that_is_not_finite_fails(caplog):
    with caplog.at_level(logging.WARNING, "bertjax"):
        warn_of_baseline(None, 0.5)
        warn_of_baseline(None, None)
    assert caplog.messages == [
        "the score is not finite: the run has failed, as a sweep would count it"
    ]
