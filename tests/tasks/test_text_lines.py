"""Lines of text as examples of each kind of task, and predictions as lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from bertjax.tasks.question_answering.answers import SpanPrediction
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import kind_of
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from bertjax.tasks.text_lines import columns_of, one_line_cell
from tests.tasks.tiny import TOKENIZER, write_table

OPTIONS = FinetuneConfig()
NOWHERE = DataLocation("nowhere")
SINGLE = SingleLabel("t", ("no", "yes"))
TAGS = Tagging("t", ("O", "B-LOC"))
SPANS = Spans("t")
CHOICE = Choice("t", 2)
SEQ2SEQ = make_task("t", TOKENIZER, max_target_length=8)


def example(task, line, location=NOWHERE, options=OPTIONS):
    kind = kind_of(task)
    forms = kind.line_forms(task, location, options)
    return kind.example_of("0", columns_of(line, forms, "text 1"))


@pytest.mark.parametrize("task,line,expected", [
    (SINGLE, "the -5 猫 ", TextExample("0", "the -5 猫 ")),
    (SINGLE, "", TextExample("0", "")),
    (SINGLE, "a\tb", TextExample("0", "a", "b")),
    (TAGS, " Rome  is\u3000古い ", TaggedExample("0", ("Rome", "is", "古い"))),
    (TAGS, "", TaggedExample("0", ())),
    (SPANS, "who?\tthe cat", QuestionExample("0", "who?", "the cat")),
    (CHOICE, "the cat\tsees\tهنا", ChoiceExample("0", "the cat", ("sees", "هنا"))),
    (SEQ2SEQ, "the cat", PairExample("0", "the cat")),
])  # fmt: skip
def test_a_line_is_an_example_of_each_kind(task, line, expected):
    assert example(task, line) == expected


@pytest.mark.parametrize("task,line,message", [
    (SINGLE, "a\tb\tc", r"text 1: found 3 columns, expected 1 column \(text\) or 2 columns \(first text, second text\), sep"),
    (TAGS, "a\tb", r"found 2 columns, expected 1 column \(words separated by spaces\)$"),
    (SPANS, "who?", r"found 1 column, expected 2 columns \(question, context\), separated by tabs"),
    (SPANS, "who?\t ", "found nothing in column 2 of 2, expected a text in each"),
    (CHOICE, "the cat\tsees", r"found 2 columns, expected 3 columns \(context, ending 0, ending 1\)"),
    (CHOICE, "\t\t", "found nothing in column 1, 2, 3 of 3"),
    (SEQ2SEQ, "a\tb", r"expected 1 column \(source\)"),
])  # fmt: skip
def test_lines_of_other_columns_are_refused_and_told_which_are_needed(task, line, message):
    with pytest.raises(UserError, match=message):
        example(task, line)


def test_columns_are_those_of_the_tasks_name_its_options_or_its_training_file(tmp_path):
    with pytest.raises(UserError, match=r"expected 2 columns \(question, sentence\)"):
        example(SingleLabel("qnli", ("a", "b")), "one text")
    with pytest.raises(UserError, match=r"expected 1 column \(body\)"):
        example(SINGLE, "a\tb", options=FinetuneConfig(text_columns=("body",)))
    write_table(tmp_path / "train.tsv", [("a", "b", "no")], ["sentence1", "sentence2", "label"])
    with pytest.raises(UserError, match=r"expected 2 columns \(sentence1, sentence2\)"):
        example(SINGLE, "one text", DataLocation(str(tmp_path)))
    # A model is used where its training files are not.
    assert example(SINGLE, "one text").text == "one text"


NAN = float("nan")


@pytest.mark.parametrize("task,prediction,cells,fields", [
    (SINGLE, ClassPrediction("yes", (0.25, 0.75)), ["yes", "0.7500"],
     {"prediction": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}),
    (MultiLabel("t", ("a", "b")), LabelSetPrediction(("a", "b"), (0.75, 0.5)), ["a,b", "0.7500,0.5000"],
     {"prediction": ["a", "b"], "probabilities": {"a": 0.75, "b": 0.5}}),
    (Regression("t"), NumberPrediction(-0.0), ["0"], {"prediction": 0.0}),
    (TAGS, ("O", "B-LOC"), ["O B-LOC"], {"prediction": ["O", "B-LOC"]}),
    (TAGS, (), [""], {"prediction": []}),
    (SPANS, SpanPrediction("a\nb", 0.5, -1.0, ()), ["a b", "0.5000"],
     {"prediction": "a\nb", "probability": 0.5, "null_odds": -1.0}),
    (CHOICE, ChoicePrediction(1, np.float32([0.25, 0.75])), ["1", "0.7500"],
     {"prediction": 1, "probabilities": [0.25, 0.75]}),
    (SEQ2SEQ, "the  cat\nsees", ["the cat sees"], {"prediction": "the  cat\nsees"}),
])  # fmt: skip
def test_a_prediction_is_a_line_and_values_for_json(task, prediction, cells, fields):
    kind = kind_of(task)
    assert kind.answer_cells(prediction, OPTIONS) == cells
    assert kind.answer_fields(task, prediction) == fields


@given(st.text())
def test_a_cell_stays_in_its_line_and_column(text):
    cell = one_line_cell(text)
    assert len(cell) == len(text)
    assert not set("\t\r\n") & set(cell)
