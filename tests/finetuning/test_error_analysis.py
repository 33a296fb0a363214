"""What is left of an evaluation for a person to look at: valid JSON, with the same parts for every
kind.
"""

import math

import numpy as np
import pytest
from etils import epath

from bertjax.finetuning.error_analysis import write_evaluation
from bertjax.finetuning.evaluate import Evaluated, Split
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.error_tables import MAX_ERRORS, MAX_LABELS
from bertjax.tasks.examples import (
    ChoiceExample,
    PairExample,
    QuestionExample,
    TaggedExample,
    TextExample,
)
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from bertjax.tasks.question_answering.answers import SpanAnswer, SpanPrediction
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import kind_of
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from tests.tasks.tiny import TOKENIZER, read_json_strictly

TEXT = SingleLabel("text", ("a", "b"))
CASES = {
    "text": (
        TEXT,
        [ClassPrediction("a", (0.9, 0.1)), ClassPrediction("a", (0.6, 0.4)), ClassPrediction("b", (0.2, 0.8))],
        [TextExample("0", "one", label="a"), TextExample("1", "two", "more", "b"), TextExample("2", "three", label="b")],
        {
            "confusion": {"labels": ["a", "b"], "counts": [[1, 0], [1, 1]]},
            "errors": [{"text": "two  |  more", "expected": "b", "predicted": "a (60%)"}],
        },
    ),
    "classes": (
        MultiLabel("classes", ("a", "b")),
        [LabelSetPrediction((), (0.1, 0.4)), LabelSetPrediction(("a", "b"), (0.9, 0.9)), LabelSetPrediction(("a",), (0.9, 0.1))],
        [TextExample("0", "one", label=("b",)), TextExample("1", "two", label=()), TextExample("2", "c", label=("a",))],
        {
            "errors": [
                {"text": "two", "expected": "none", "predicted": "a, b"},
                {"text": "one", "expected": "b", "predicted": "none"},
            ]
        },
    ),
    "number": (
        Regression("number"),
        [NumberPrediction(2.5), NumberPrediction(-1.0)],
        [TextExample("0", "one", label=2.0), TextExample("1", "two", label=4.0)],
        {
            "errors": [
                {"text": "two", "expected": "4.0", "predicted": "-1.000"},
                {"text": "one", "expected": "2.0", "predicted": "2.500"},
            ]
        },
    ),
    "tags": (
        Tagging("tags", ("O", "B-A")),
        [("O", "O"), ("O", "B-A")],
        [TaggedExample("0", ("the", "cat"), ("O", "O")), TaggedExample("1", ("rome", "is"), ("B-A", "O"))],
        {
            "confusion": {"labels": ["O", "B-A"], "counts": [[2, 1], [1, 0]]},
            "errors": [{"text": "rome is", "expected": "rome/B-A is/O", "predicted": "rome/O is/B-A"}],
        },
    ),
    "spans": (
        Spans("spans", version_2=True),
        [
            SpanPrediction("rome", 0.5, 0.0, (SpanAnswer("rome", 0.5, 1.0, 1.0),)),
            SpanPrediction("", 0.75, 2.0, ()),
            SpanPrediction("one", 0.75, 2.0, ()),
        ],
        [
            QuestionExample("0", "where?", "in paris", (("paris", 3), ("paris", 3), ("in paris", 0))),
            QuestionExample("1", "who?", "no one", ()),
            QuestionExample("2", "who?", "no one", ()),
        ],
        {
            "errors": [
                {"text": "who?  (no one)", "expected": "no answer", "predicted": "one"},
                {"text": "where?  (in paris)", "expected": "paris | in paris", "predicted": "rome"},
            ]
        },
    ),
    "choice": (
        Choice("choice", 2),
        [ChoicePrediction(n, np.float32(p)) for n, p in ((0, [0.6, 0.4]), (1, [0.1, 0.9]), (1, [0.2, 0.8]))],
        [ChoiceExample(str(n), f"context {n}", ("x", "y"), label=label) for n, label in enumerate((1, 0, 1))],
        {
            "errors": [
                {"text": "context 1", "expected": "x", "predicted": "y"},
                {"text": "context 0", "expected": "y", "predicted": "x"},
            ]
        },
    ),
    "pairs": (
        make_task("pairs", TOKENIZER),
        ["the  cat", "dog"],
        [PairExample("0", "chat", "the cat"), PairExample("1", "chien", "the dog")],
        {"errors": [{"text": "chien", "expected": "the dog", "predicted": "dog"}]},
    ),
}  # fmt: skip


def write(tmp_path, result, figures):
    return read_json_strictly(write_evaluation(epath.Path(tmp_path), 12, result, figures))


@pytest.mark.parametrize("name", CASES)
def test_every_kind_is_described_in_valid_json(tmp_path, name):
    task, predictions, examples, expected = CASES[name]
    split = Split(task.name, "other", examples, None)
    content = write(
        tmp_path, [(task, split, Evaluated(predictions, {task.metric: 0.5}))], {"score": 0.5}
    )
    assert (content["step"], content["figures"]) == (12, {"score": 0.5})
    (result,) = content["splits"]
    about = {"task": task.name, "split": "other", "metric": task.metric, "examples": len(examples)}
    assert {key: result[key] for key in about} == about
    assert result["figures"] == {task.metric: 0.5}
    for key, value in expected.items():
        assert result[key] == value
    calibrated = {"calibration"} if name in ("text", "classes", "choice") else set()
    scored = {"class_scores"} if name in ("text", "classes", "tags") else set()
    assert set(result) == {*about, "figures", "signatures", *expected, *calibrated, *scored}


def test_calibration_is_of_what_was_predicted(tmp_path):
    task, predictions, examples, _ = CASES["text"]
    result = kind_of(task).error_tables(task, predictions, examples)["calibration"]
    assert len(result["bins"]) == 10
    assert [each["predictions"] for each in result["bins"]] == [0, 0, 0, 0, 0, 1, 0, 1, 1, 0]
    assert result["bins"][5] == pytest.approx(
        {"low": 0.5, "high": 0.6, "predictions": 1, "confidence": 0.6, "accuracy": 0.0}
    )
    assert result["expected_calibration_error"] == pytest.approx((0.6 + 0.2 + 0.1) / 3)


def test_figures_that_are_no_numbers_leave_the_file_valid_json(tmp_path):
    """As those of a model whose parameters have gone astray."""
    task, _, examples, _ = CASES["text"]
    astray = [ClassPrediction("a", (math.nan, math.nan))] * 3
    figures = {"loss": math.nan, "accuracy": 1 / 3, "score": math.inf}
    content = write(
        tmp_path, [(task, Split("text", "", examples, None), Evaluated(astray, figures))], figures
    )
    assert content["figures"] == content["splits"][0]["figures"] == {"accuracy": 1 / 3}
    assert "calibration" not in content["splits"][0]


def test_of_many_labels_the_commonest_are_shown_and_of_many_errors_the_worst():
    labels = tuple(f"l{n:02}" for n in range(MAX_LABELS + 10))
    task = SingleLabel("many", labels)
    counts = [1 + n % 7 for n in range(len(labels))]
    examples = [
        TextExample("", "x" * 2000, label=label)
        for label, n in zip(labels, counts, strict=True)
        for _ in range(n)
    ]
    wrong = ClassPrediction(labels[0], (1.0,) + (0.0,) * (len(labels) - 1))
    result = kind_of(task).error_tables(task, [wrong] * len(examples), examples)
    assert len(result["confusion"]["labels"]) == MAX_LABELS
    assert result["confusion"]["labels"] == sorted(result["confusion"]["labels"])
    left = set(labels) - set(result["confusion"]["labels"])
    shown = min(n for label, n in zip(labels, counts, strict=True) if label not in left)
    assert max(n for label, n in zip(labels, counts, strict=True) if label in left) <= shown
    assert all(len(row) == MAX_LABELS for row in result["confusion"]["counts"])
    assert len(result["errors"]) == MAX_ERRORS
    assert len(result["errors"][0]["text"]) == 1000
