"""What the kinds of task do in their own ways: majority-class baselines, options they use."""

import numpy as np
import pytest

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import KINDS, entry_of, kind_of
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


def test_the_baseline_of_version_2_is_to_answer_nothing():
    examples = [
        QuestionExample("0", "?", "a", ()),
        QuestionExample("1", "?", "a", (("a", 0),)),
        QuestionExample("2", "?", "a", ()),
    ]
    assert baseline(Spans("t", version_2=True), examples) == pytest.approx(2 / 3)
    assert baseline(Spans("t"), examples[1:2]) == 0.0


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
    ("squad=x", {"encoding": "latin-1"}, "encoding: found latin-1, expected utf-8, for squad"),
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
