"""SQuAD's files: what is read of them, and what is refused."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.squad import read_squad, tfds_questions

CONTEXT = "The leader was John Smith (1895-1943)."


def question(number, *answers, **fields):
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": f"q{number}", "question": "When?", "answers": given, **fields}


def squad(folder, *questions, context=CONTEXT):
    path = folder / "train.json"
    content = {
        "version": "1.1",
        "data": [{"title": "T", "paragraphs": [{"context": context, "qas": list(questions)}]}],
    }
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_questions_are_read_with_all_their_answers(tmp_path):
    path = squad(tmp_path, question(0, ("1895", 27), ("1895-1943", 27)), question(1, ("John", 99)))
    first, second = read_squad(path, training=False)
    assert first == QuestionExample("q0", "When?", CONTEXT, (("1895", 27), ("1895-1943", 27)))
    assert second.answers == (("John", 99),)  # a score is of the text


def test_impossible_questions_are_kept_without_their_plausible_answers(tmp_path):
    plausible = [{"text": "1895", "answer_start": 27}]
    path = squad(
        tmp_path,
        question(0, is_impossible=True, plausible_answers=plausible),
        {"id": "q1", "question": "Who?", "is_impossible": True},
        question(2, ("1895", 27), is_impossible=False),
    )
    for training in (False, True):
        assert [example.answers for example in read_squad(path, training=training)] == [
            (),
            (),
            (("1895", 27),),
        ]


def test_answers_that_are_not_where_they_say_are_left_out_and_counted(tmp_path, caplog):
    path = squad(
        tmp_path,
        question(0, ("1895", 27)),
        question(1, ("1895", 26)),
        question(2, ("1943", 0), ("John", 15)),
        question(3, ("nobody", 2)),
        question(4),
    )
    with caplog.at_level(logging.WARNING, "bertjax"):
        result = {example.id: example.answers for example in read_squad(path, training=True)}
    assert result == {"q0": (("1895", 27),), "q2": (("John", 15),), "q4": ()}
    assert caplog.messages == [
        f"{path}: answers that are not where they say: 3, of the question q1 first; questions left out: 2 of 5"
    ]
    caplog.clear()
    assert len(read_squad(squad(tmp_path, question(0, (" 1895\n", 27))), training=True)) == 1
    assert not caplog.messages


@pytest.mark.parametrize("change,message", [
    (lambda d: d.pop("data"), "{path}: found no data, expected data, a list"),
    (lambda d: d.update(data={}), "{path}: data: found an object, expected a list"),
    (lambda d: d["data"].append(3), "{path}: data[1]: found a whole number, expected an object"),
    (lambda d: d["data"][0].pop("paragraphs"), "{path}: data[0]: found no paragraphs, expected paragraphs, a list"),
    (lambda d: d["data"][0]["paragraphs"][0].update(context=None),
     "{path}: data[0].paragraphs[0].context: found null, expected text"),
    (lambda d: d["data"][0]["paragraphs"][0].update(context=" \n"),
     "{path}: data[0].paragraphs[0].qas[0]: found a context without text, expected text"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].pop("id"),
     "{path}: data[0].paragraphs[0].qas[2]: found no id, expected id, text"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].pop("question"),
     "{path}: data[0].paragraphs[0].qas[2]: found no question, expected question, text"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].update(id="q0"),
     "{path}: data[0].paragraphs[0].qas[2]: found the id q0 again, after {path}: data[0].paragraphs[0].qas[0], expected it once"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].pop("answers"),
     "{path}: data[0].paragraphs[0].qas[2]: found no answers, expected answers, to train on"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].update(is_impossible=True),
     "{path}: data[0].paragraphs[0].qas[2]: found answers, and is_impossible true, expected the one or the other"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2].update(is_impossible="no"),
     "{path}: data[0].paragraphs[0].qas[2].is_impossible: found text, expected true or false"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2]["answers"][0].update(answer_start=1.5),
     "{path}: data[0].paragraphs[0].qas[2].answers[0].answer_start: found a float, expected a whole number"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][2]["answers"][0].pop("text"),
     "{path}: data[0].paragraphs[0].qas[2].answers[0]: found no text, expected text, text"),
    (lambda d: d["data"][0]["paragraphs"][0]["qas"][1].update(question="\ud800?"),
     "{path}: data[0].paragraphs[0].qas[1].question: found half of a surrogate pair, expected Unicode text"),
    (lambda d: d.update(data=[]), "{path}: found no question, expected one or more"),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_place(tmp_path, change, message):
    path = squad(tmp_path, *(question(number, ("1895", 27)) for number in range(3)))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_squad(path, training=True)
    assert str(error.value) == message.replace("{path}", str(path))


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "train.json"
    for content in ("", '{"data": [', "[1]"):
        path.write_text(content)
        with pytest.raises(UserError, match=str(path)):
            read_squad(path, training=True)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_squad(tmp_path / "none.json", training=False)


def test_a_test_set_may_be_without_answers_and_a_training_set_without_any_right_one_is_refused(
    tmp_path,
):
    hidden = squad(tmp_path, {"id": 7, "question": "?"})
    assert [(example.id, example.answers) for example in read_squad(hidden, training=False)] == [
        ("7", None)
    ]
    with pytest.raises(
        UserError,
        match="found no answer of 1 questions where it says, expected answers to train on",
    ):
        read_squad(squad(tmp_path, question(0, ("x", 0))), training=True)


def test_records_of_tfds_are_questions_too():
    records = [
        {"id": b"a", "title": b"T", "question": "wer\u00e4?".encode(), "context": CONTEXT.encode(),
         "answers": {"text": np.array([b"1895", b"1895-1943"], object), "answer_start": np.array([27, 27], np.int32)}},
        {"id": b"b", "question": b"?", "context": b"x", "is_impossible": np.bool_(True),
         "answers": {"text": np.array([], object), "answer_start": np.array([], np.int32)}},
    ]  # fmt: skip
    (where, first), (_, second) = tfds_questions(records, "tfds:squad, train")
    assert where == "tfds:squad, train, example 0"
    assert first == QuestionExample("a", "werä?", CONTEXT, (("1895", 27), ("1895-1943", 27)))
    assert second == QuestionExample("b", "?", "x", ())
    with pytest.raises(
        UserError, match="tfds:x, example 0: found no context, expected context, text"
    ):
        list(tfds_questions([{"id": b"a", "text": b"T"}], "tfds:x"))


TFDS_SCRIPT = """
import os
import numpy as np
import tensorflow_datasets as tfds
from bertjax.errors import UserError
from bertjax.tasks.question_answering.squad import read_tfds

class TinySquad(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        answer = tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32})
        text = {name: tfds.features.Text() for name in ("id", "title", "context", "question")}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({**text, "answers": answer}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, start in enumerate([3, 2, 4]):
            answers = [{"text": "b\\u00e4r", "answer_start": start}]
            yield i, {"id": f"q{i}", "title": "", "context": "Ein b\\u00e4r.", "question": "?", "answers": answers}

TinySquad(data_dir=os.environ["TFDS_DATA_DIR"]).download_and_prepare()
print(sorted((e.id, e.answers) for e in read_tfds("tfds:tiny_squad", "train", training=True)))
try:
    read_tfds("tfds:tiny_squad", "dev", training=False)
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_tfds_set_is_read_by_its_name(tmp_path):
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TFDS_SCRIPT], capture_output=True, encoding="utf-8", env=environment
    )
    assert done.returncode == 0, done.stderr
    result, error = done.stdout.splitlines()[-2:]
    assert result == "[('q0', (('bär', 4),)), ('q2', (('bär', 4),))]"
    assert error == "tfds:tiny_squad: found the splits train, expected a split dev"
