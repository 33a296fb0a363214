"""SQuAD's files: what is read of them, and what is refused."""

import gzip
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertjax.errors import UserError
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.squad import read_questions, tfds_questions

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
    first, second = read_questions(path, training=False)
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
        assert [example.answers for example in read_questions(path, training=training)] == [
            (),
            (),
            (("1895", 27),),
        ]


def test_answers_that_are_not_where_they_say_are_left_out_and_counted(tmp_path, caplog):
    path = squad(
        tmp_path,
        *(question(10 + number, ("1895", 27)) for number in range(26)),
        question(1, ("1895", 26)),
        question(2, ("1943", 0), ("John", 15)),
        question(3, ("nobody", 2)),
        question(4),
    )
    with caplog.at_level(logging.WARNING, "bertjax"):
        result = {example.id: example.answers for example in read_questions(path, training=True)}
    assert len(result) == 28
    assert (result["q2"], result["q4"]) == ((("John", 15),), ())
    assert caplog.messages == [
        f"{path}: 3 of 30 answers that are not where they say (first of the question q1);"
        " they are left out, and with them questions: 2 of 30"
    ]
    caplog.clear()
    assert len(read_questions(squad(tmp_path, question(0, (" 1895\n", 27))), training=True)) == 1
    assert not caplog.messages


def test_a_file_of_which_more_than_a_tenth_is_elsewhere_is_refused_with_the_count(tmp_path):
    right = [question(number, ("1895", 27)) for number in range(26)]
    wrong = [question(100 + number, ("1895", 26)) for number in range(3)]
    path = squad(tmp_path, *right, *wrong)
    with pytest.raises(UserError) as error:
        read_questions(path, training=True)
    assert str(error.value) == (
        f"{path}: found 3 of 29 answers that are not where they say (first of the question q100),"
        " expected at most 10%, and each start counted in characters, from 0"
    )
    assert len(read_questions(path, training=False)) == 29


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
        read_questions(path, training=True)
    assert str(error.value) == message.replace("{path}", str(path))


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "train.json"
    for content in ("", '{"data": [', "[1]"):
        path.write_text(content)
        with pytest.raises(UserError, match=str(path)):
            read_questions(path, training=True)
    with pytest.raises(UserError, match=r"none.json: cannot be read \(No such file"):
        read_questions(tmp_path / "none.json", training=False)


def test_a_test_set_may_be_without_answers_and_a_training_set_without_any_right_one_is_refused(
    tmp_path,
):
    hidden = squad(tmp_path, {"id": 7, "question": "?"})
    assert [
        (example.id, example.answers) for example in read_questions(hidden, training=False)
    ] == [("7", None)]
    with pytest.raises(
        UserError,
        match="found 1 of 1 answers that are not where they say",
    ):
        read_questions(squad(tmp_path, question(0, ("x", 0))), training=True)


def row(number, texts, starts, **fields):
    """A question as `datasets` has it."""
    answers = {"text": texts, "answer_start": starts}
    return {
        "id": f"q{number}",
        "title": "T",
        "context": CONTEXT,
        "question": "When?",
        "answers": answers,
        **fields,
    }


ROWS = [
    row(0, ["1895", "1895-1943"], [27, 27]),
    row(1, [], []),
    row(2, [""], [-1]),
    row(3, ["", "John"], [0, 15], is_impossible=False),
    row(4, [], [], is_impossible=True, plausible_answers={"text": ["John"], "answer_start": [15]}),
    row(5, ["The"], [0], is_impossible=None),
]
ANSWERS = [(("1895", 27), ("1895-1943", 27)), (), (), (("John", 15),), (), (("The", 0),)]


def write_rows(folder, form, rows):
    path = folder / f"train.{form.partition('-')[0]}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "json-data":
        path.write_text(json.dumps({"version": "0.1.0", "data": rows}))
    elif form == "json-array":
        path.write_text(json.dumps(rows, indent=1))
    elif form == "json-nested":
        nested = [
            dict(
                one,
                answers=[
                    dict(zip(("text", "answer_start"), pair, strict=True))
                    for pair in zip(*one["answers"].values(), strict=True)
                ],
            )
            for one in rows
        ]
        path.write_text("".join(json.dumps(one) + "\n" for one in nested))
    elif form == "jsonl.gz":
        path = folder / "train.jsonl.gz"
        path.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in rows).encode()))
    else:
        path.write_text("\ufeff" + "".join(json.dumps(one) + "\r\n" for one in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    "form", ["jsonl", "json", "json-array", "json-data", "json-nested", "jsonl.gz", "parquet"]
)
def test_a_table_of_questions_is_read_and_an_empty_answer_is_none(tmp_path, form):
    path = write_rows(tmp_path, form, ROWS)
    for training in (True, False):
        examples = read_questions(path, training=training)
        assert [example.answers for example in examples] == ANSWERS
        assert examples[0] == QuestionExample("q0", "When?", CONTEXT, ANSWERS[0])
        assert [example.id for example in examples] == [f"q{number}" for number in range(6)]


def test_an_empty_answer_is_none_in_squads_form_too_and_the_file_may_be_compressed(tmp_path):
    path = squad(
        tmp_path,
        question(0, ("", 0)),
        question(1, ("", -1), is_impossible=True),
        question(2, (" ", 3), ("John", 15)),
    )
    packed = tmp_path / "dev.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        assert [example.answers for example in read_questions(file, training=True)] == [
            (),
            (),
            (("John", 15),),
        ]


def test_rows_without_ids_are_numbered_and_those_without_answers_are_to_be_predicted(tmp_path):
    rows = [
        {key: value for key, value in row(0, [], []).items() if key not in ("id", "answers")}
        for _ in range(2)
    ]
    rows[1]["answers"] = None
    examples = read_questions(write_rows(tmp_path, "jsonl", rows), training=False)
    assert [(example.id, example.answers) for example in examples] == [("1", None), ("2", None)]


@pytest.mark.parametrize("change,message", [
    ({"context": None}, "context: found null, expected text"),
    ({"context": " "}, "found a context without text, expected text"),
    ({"question": 3}, "question: found a whole number, expected text"),
    ({"id": "q0"}, "found the id q0 again, after {path}, line 1, expected it once"),
    ({"answers": None}, "found no answers, expected answers, to train on"),
    ({"answers": "1895"}, 'answers: found text, expected {"text": [...], "answer_start": [...]} or a list of such objects'),
    ({"answers": {"text": ["1895"]}}, "answers: found an object with the fields text, expected "),
    ({"answers": {"text": ["1895"], "answer_start": []}}, "answers: found 1 texts, 0 starts, expected as many starts as texts"),
    ({"answers": {"text": "1895", "answer_start": [27]}}, "answers.text: found text, expected a list"),
    ({"answers": {"text": ["1895"], "answer_start": ["27"]}}, "answers[0].answer_start: found text, expected a whole number"),
    ({"answers": {"text": [3], "answer_start": [27]}}, "answers[0].text: found a whole number, expected text"),
    ({"is_impossible": True}, "found answers, and is_impossible true, expected the one or the other"),
    ({"is_impossible": 0}, "is_impossible: found a whole number, expected true or false"),
])  # fmt: skip
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path, change, message):
    path = write_rows(tmp_path, "jsonl", [row(0, ["1895"], [27]), row(1, ["1895"], [27]) | change])
    with pytest.raises(UserError) as error:
        read_questions(path, training=True)
    assert str(error.value).startswith(f"{path}, line 2: " + message.replace("{path}", str(path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["squad", "jsonl"])
def test_a_file_in_another_encoding_is_read_by_its_name(tmp_path, form):
    context = "Die Stadt Köln."
    if form == "squad":
        path = squad(tmp_path, question(0, ("Köln", 10)), context=context)
    else:
        path = write_rows(tmp_path, "jsonl", [row(0, ["Köln"], [10]) | {"context": context}])
    content = json.dumps(json.loads(path.read_text("utf-8-sig")), ensure_ascii=False)
    path.write_text(content, "latin-1")
    with pytest.raises(UserError, match="the byte 0xf6, which is not UTF-8"):
        read_questions(path, training=True)
    (example,) = read_questions(path, training=True, encoding="latin-1")
    assert (example.context, example.answers) == (context, (("Köln", 10),))


def test_answers_in_the_form_of_datasets_are_read_in_squads_form_too(tmp_path):
    answers = {"text": ["1895"], "answer_start": [27]}
    path = squad(tmp_path, {"id": "a", "question": "?", "answers": answers})
    assert read_questions(path, training=True)[0].answers == (("1895", 27),)


def test_one_answer_of_a_row_needs_no_lists(tmp_path):
    path = write_rows(tmp_path, "jsonl", [row(0, "1895", 27)])
    assert read_questions(path, training=True)[0].answers == (("1895", 27),)


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
from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.question_answering.squad import read_tfds
from bertjax.tasks.registry import KINDS, entry_of

class TinySquad(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        answer = tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32})
        text = {name: tfds.features.Text() for name in ("id", "title", "context", "question")}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({**text, "answers": answer}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, start in enumerate([3, 2, *[4] * 12]):
            answers = [{"text": "b\\u00e4r", "answer_start": start}]
            yield i, {"id": f"q{i}", "title": "", "context": "Ein b\\u00e4r.", "question": "?", "answers": answers}

TinySquad(data_dir=os.environ["TFDS_DATA_DIR"]).download_and_prepare()
print(sorted((e.id, e.answers) for e in read_tfds("tfds:tiny_squad", "train", training=True))[:2])
for split in ("train[:2]", "train[:50%]+train[50%:]"):
    entry = entry_of("mine:spans=tfds:tiny_squad", FinetuneConfig(train_files=tuple(split.split("+"))))
    print(len(KINDS["spans"].read_split(entry, "train", FinetuneConfig(), True)))
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
    result, part, whole, error = done.stdout.splitlines()[-4:]
    assert result == "[('q0', (('bär', 4),)), ('q10', (('bär', 4),))]"
    assert error == "tfds:tiny_squad: found the splits train, expected a split dev"
    assert (part, whole) == ("2", "13")
