"""What the kinds of task do in their own ways: majority-class baselines, options they use."""

import numpy as np
import pytest

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import (
    ChoiceExample,
    PairExample,
    QuestionExample,
    TaggedExample,
    TextExample,
)
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from bertjax.tasks.question_answering.answers import SpanPrediction
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import KINDS, entry_of, kind_of
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from tests.tasks.tiny import TOKENIZER


def baseline(task, examples):
    return kind_of(task).majority_baseline(task, examples)


def texts(*labels):
    return [TextExample(str(n), "text", label=label) for n, label in enumerate(labels)]


def classes(*labels):
    return [ClassPrediction(label, (0.5, 0.5)) for label in labels]


def test_the_baseline_of_classes_is_the_commonest_one():
    task = SingleLabel("t", ("a", "b", "c"))
    assert baseline(task, texts("b", "a", "b", "c", "b")) == pytest.approx(0.6)
    assert baseline(task, texts("a")) is None  # no model is better


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
    tagged = [TaggedExample("0", ("x", "y", "z"), ("O", "O", "B-A"))]
    assert baseline(Tagging("t", ("O", "B-A")), tagged) == 0.0
    # Without an entity the F1 of right tags is 0 too.
    assert baseline(Tagging("t", ("O", "B-A")), [TaggedExample("0", ("x",), ("O",))]) is None


def test_the_examples_may_be_any_sequence():
    assert baseline(
        SingleLabel("t", ("a", "b")), np.array(texts("a", "b", "a"), object)
    ) == pytest.approx(2 / 3)


def test_the_baseline_of_version_2_is_to_answer_nothing():
    examples = [
        QuestionExample("0", "?", "a", ()),
        QuestionExample("1", "?", "a", (("a", 0),)),
        QuestionExample("2", "?", "a", ()),
    ]
    assert baseline(Spans("t", version_2=True), examples) == pytest.approx(2 / 3)
    assert baseline(Spans("t"), examples[1:2]) == 0.0


def test_the_baseline_of_an_error_is_the_mean_or_the_median():
    examples = texts(0.0, 0.0, 6.0)
    assert baseline(Regression("t", metrics=("mse",)), examples) == pytest.approx(-8.0)
    assert baseline(Regression("t", metrics=("mae",)), examples) == pytest.approx(-2.0)


def test_the_baseline_of_recall_is_the_commonest_class_since_any_class_alone_has_a_recall_of_1():
    examples = texts("a", "a", "b")
    two = ("a", "b")
    assert baseline(SingleLabel("t", two, metrics=("recall:b",)), examples) == 0.0
    assert baseline(SingleLabel("t", two, metrics=("f1:b",)), examples) == pytest.approx(0.5)


TWO_TAGS = [TaggedExample(str(n), ("x", "y"), ("O", "B-A")) for n in range(2)]
QUESTIONS = [
    QuestionExample("0", "?", "cat dog", ()),
    QuestionExample("1", "?", "cat dog", (("cat", 0),)),
]
CHOICES = [ChoiceExample(str(n), "c", ("x", "y"), label=n) for n in range(2)]
PAIRS = [PairExample("0", "chat", "cat"), PairExample("1", "chien", "dog")]


def sets(*labels):
    return [LabelSetPrediction(each, (0.5, 0.5)) for each in labels]


def numbers(*values):
    return [NumberPrediction(value) for value in values]


def answers(*spans):
    return [SpanPrediction(text, 0.5, 0.0, ()) for text in spans]


def choices(*endings):
    return [ChoicePrediction(ending, np.full(2, 0.5, np.float32)) for ending in endings]


AB = ("a", "b")
ORDERED = 1.907 + np.linspace(-0.05, 0.05, 32)
GENERATOR = make_task("t", TOKENIZER)


@pytest.mark.parametrize("task,predictions,examples,answer", [
    (SingleLabel("t", AB), classes("a", "a"), texts("a", "b"), "a"),
    (SingleLabel("t", AB), classes("a", "b"), texts("b", "a"), None),
    (SingleLabel("t", AB), classes("a", "a"), texts("a", "a"), None),  # and all of them are right
    (SingleLabel("t", AB), classes("a"), texts("b"), None),
    (MultiLabel("t", AB), sets((), ()), texts(("a",), ()), "none"),
    (MultiLabel("t", AB), sets(AB, AB), texts(("a",), ()), "a, b"),
    (MultiLabel("t", AB), sets((), AB), texts(("a",), ()), None),
    (Regression("t"), numbers(2.0, 2.0, 2.0), texts(0.0, 3.0, 5.0), "about 2.000"),
    (Regression("t"), numbers(2.0, 2.001, 2.0), texts(0.0, 3.0, 5.0), "about 2.000"),
    # In the right order, if close together; and such an order by rounding.
    (Regression("t"), numbers(*ORDERED), texts(*range(32)), None),
    (Regression("t"), numbers(*ORDERED[::-1]), texts(*range(32)), "about 1.907"),
    (Regression("t"), numbers(*1.907 + 1e-9 * np.arange(32)), texts(*range(32)), "about 1.907"),
    (Regression("t"), numbers(2.0, 2.5, 2.0), texts(0.0, 3.0, 5.0), None),
    (Regression("t"), numbers(2.0, 2.0), texts(3.0, 3.0), None),
    (Tagging("t", ("O", "B-A")), [("O", "O"), ("O", "O")], TWO_TAGS, "O"),
    (Tagging("t", ("O", "B-A")), [("O", "B-A"), ("B-A", "O")], TWO_TAGS, None),
    (Spans("t", version_2=True), answers("", ""), QUESTIONS, "no answer"),
    (Spans("t", version_2=True), answers("dog", "dog"), QUESTIONS, "dog"),
    (Spans("t", version_2=True), answers("", "dog"), QUESTIONS, None),
    (Choice("t", 2), choices(1, 1), CHOICES, "ending 1"),
    (Choice("t", 2), choices(1, 0), CHOICES, None),
    (GENERATOR, ["the", "the"], PAIRS, "the"),
    (GENERATOR, ["", ""], PAIRS, "an empty text"),
    (GENERATOR, ["the", "cat"], PAIRS, None),
])  # fmt: skip
def test_an_answer_that_is_the_same_for_all_is_told(task, predictions, examples, answer):
    assert kind_of(task).constant_answer(task, predictions, examples) == answer


SMOOTHING = {"label_smoothing": 0.1}
BALANCED = {"class_weights": "balanced"}
DECODER = {"decoder_from": "run"}


@pytest.mark.parametrize("text,options,refused", [
    ("own:classification=x", {**SMOOTHING, **BALANCED}, ""),
    ("own:classification=x", {**SMOOTHING, "label_type": "classes"}, ""),
    ("own:classification=x", {**SMOOTHING, "label_type": "number"}, "label_smoothing: found 0.1, expected 0, for own"),
    ("stsb=x", BALANCED, "class_weights: found balanced, expected none, for stsb"),
    ("rte=x", {**SMOOTHING, "label_type": "number"}, ""),
    ("own:classification=x", DECODER, "decoder_from: found run, expected none, for own"),
    ("ner=x", {**SMOOTHING, **BALANCED}, ""),
    ("ner=x", DECODER, "decoder_from: found run, expected none, for ner"),
    ("squad=x", SMOOTHING, "label_smoothing: found 0.1, expected 0, for squad"),
    ("squad=x", BALANCED, "class_weights: found balanced, expected none, for squad"),
    ("swag=x", SMOOTHING, ""),
    ("swag=x", BALANCED, "class_weights: found balanced, expected none, for swag"),
    ("own:classification=x", {"encoding": "latin-1", "file_form": "label_text"}, ""),
    ("own:seq2seq=x", {"encoding": "latin-1"}, ""),
    ("swag=x", {"encoding": "latin-1"}, ""),
    ("squad=x", {"encoding": "latin-1"}, ""),
    ("squad=tfds:x", {"encoding": "latin-1"}, "encoding: found latin-1, expected utf-8, for squad"),
    ("squad=x", {"answer_rule": "mlqa_zh"}, ""),
    ("swag=x", {"answer_rule": "mlqa_zh"}, "answer_rule: found mlqa_zh, expected auto, for swag"),
    ("own:seq2seq=x", {"bleu_tokenizer": "zh"}, ""),
    ("squad=x", {"bleu_tokenizer": "zh"}, "bleu_tokenizer: found zh, expected auto, for squad"),
    ("own:classification=tfds:x", {"encoding": "latin-1"}, "encoding: found latin-1, expected utf-8, for own"),
    ("swag=x", {"file_form": "label_text"}, "file_form: found label_text, expected table, for swag"),
    ("rte=x", {"label_columns": ("a", "b"), "label_type": "classes"}, "label_columns: found ('a', 'b'), expected none, for rte"),
    ("own:seq2seq=x", {**SMOOTHING, **DECODER}, ""),
    ("own:seq2seq=x", BALANCED, "class_weights: found balanced, expected none, for own"),
])  # fmt: skip
def test_an_option_without_an_effect_is_refused(text, options, refused):
    options = FinetuneConfig(**options)
    entry = entry_of(text, options)
    if not refused:
        KINDS[entry.kind].check_options(entry, options)
        return
    with pytest.raises(UserError) as raised:
        KINDS[entry.kind].check_options(entry, options)
    assert str(raised.value) == f"finetune.{refused}"
