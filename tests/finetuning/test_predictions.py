"""Predictions written as each kind's field reads them; predictions made by hand."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.finetuning.predictions import write_predictions
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.examples import (
    ChoiceExample,
    PairExample,
    QuestionExample,
    TaggedExample,
    TextExample,
)
from bertjax.tasks.kind import PredictedSplit
from bertjax.tasks.multiple_choice.task import ChoicePrediction
from bertjax.tasks.question_answering.answers import SpanAnswer, SpanPrediction
from bertjax.tasks.registry import entry_of, read_split
from bertjax.tasks.tagging.conll import read_conll


def written(tmp_path, task, predictions, examples, split="test", **options):
    """{name: text} of the files made."""
    options = FinetuneConfig(**options)
    folder = epath.Path(tmp_path) / "new" / "out"
    predicted = PredictedSplit(entry_of(task, options), split, examples, predictions)
    (made,) = write_predictions(folder, [predicted], options)
    assert {path.name for path in folder.iterdir()} == {path.name for path in made}
    return {path.name: path.read_text() for path in made}


PAIRS = [TextExample("0", "a\tcat", "no\ndog"), TextExample("7", "the dog", "one")]


def test_a_test_set_of_glue_is_written_to_be_handed_in_and_to_be_read(tmp_path):
    predictions = [
        ClassPrediction("not_entailment", (0.25, 0.75)),
        ClassPrediction("entailment", (0.9, 0.1)),
    ]
    assert written(tmp_path, "rte=x", predictions, PAIRS) == {
        "rte-test.tsv": "id\tsentence1\tsentence2\tprediction\tprobability\n"
        "0\ta cat\tno dog\tnot_entailment\t0.7500\n7\tthe dog\tone\tentailment\t0.9000\n",
        "RTE.tsv": "index\tprediction\n0\tnot_entailment\n7\tentailment\n",
    }


def test_each_of_mnlis_test_sets_has_its_own_file(tmp_path):
    predictions = [ClassPrediction("neutral", (0.2, 0.6, 0.2))] * 2
    assert set(written(tmp_path / "a", "mnli=x", predictions, PAIRS, "test_matched")) == {
        "mnli-test_matched.tsv",
        "MNLI-m.tsv",
    }
    result = written(tmp_path / "b", "mnli=x", predictions, PAIRS, "test_mismatched")
    assert result["MNLI-mm.tsv"] == "index\tprediction\n0\tneutral\n7\tneutral\n"


def test_numbers_are_written_within_glues_range_and_plainly(tmp_path):
    predictions = [NumberPrediction(5.25), NumberPrediction(2.5)]
    result = written(tmp_path, "sts-b=x", predictions, PAIRS)
    assert result["STS-B.tsv"] == "index\tprediction\n0\t5.000\n7\t2.500\n"
    assert result["stsb-test.tsv"].splitlines()[1] == "0\ta cat\tno dog\t5.25"


@pytest.mark.parametrize("task,split", [("rte=x", "validation"), ("own:classification=x", "test")])
def test_what_is_not_to_be_handed_in_is_a_table_only(tmp_path, task, split):
    predictions = [ClassPrediction("entailment", (1.0, 0.0))] * 2
    assert len(written(tmp_path, task, predictions, PAIRS, split)) == 1


def test_several_classes_stand_between_the_separators_of_the_data(tmp_path):
    predictions = [
        LabelSetPrediction(("a", "b"), (0.75, 0.5, 0.25)),
        LabelSetPrediction((), (0.1, 0.1, 0.1)),
    ]
    examples = [TextExample("0", "a cat"), TextExample("1", "the dog")]
    (text,) = written(
        tmp_path, "own:classification=x", predictions, examples, label_separator=";"
    ).values()
    assert (
        text
        == "id\tsentence\tprediction\tprobability\n0\ta cat\ta;b\t0.7500;0.5000\n1\tthe dog\t\t\n"
    )


def tagged(folder, options=None, task="own:tagging"):
    """(entry's words, examples) of the files of a folder."""
    options = options or FinetuneConfig()
    return f"{task}={folder}", read_split(
        entry_of(f"{task}={folder}", options), "test", options, False
    )


def test_tags_are_written_into_the_files_own_lines(tmp_path):
    text = "-DOCSTART- -X- O\n\nRome NNP B-LOC\r\nis VB O\n\n\n. . O"
    (tmp_path / "test.txt").write_bytes(text.encode())
    task, examples = tagged(tmp_path)
    result = written(tmp_path, task, [("O", "B-LOC"), ("B-LOC",)], examples)
    assert set(result) == {"own-test.txt"}
    made = (tmp_path / "new" / "out" / "own-test.txt").read_bytes().decode()
    assert made == "-DOCSTART- -X- O\n\nRome NNP O\r\nis VB B-LOC\n\n\n. . B-LOC"
    assert [one.tags for one in read_conll(tmp_path / "new" / "out" / "own-test.txt")] == [
        ("O", "B-LOC"),
        ("B-LOC",),
    ]


@pytest.mark.parametrize("name", ["test.txt", "test.json"])
def test_gold_tags_stand_beside_predicted_ones_if_asked_for(tmp_path, name):
    text = "-DOCSTART- -X- O\n\nNew_York NNP B-LOC\r\nis VB O\n\n\n. . O"
    rows = [{"tokens": ["New York", "is"], "ner": ["B-LOC", "O"]}, {"tokens": ["."], "ner": ["O"]}]
    (tmp_path / name).write_text(text if name.endswith("txt") else json.dumps(rows))
    task, examples = tagged(tmp_path)
    predictions = [("O", "B-LOC"), ("B-LOC",)]
    assert written(tmp_path, task, predictions, examples, keep_gold_tags=True) == {
        "own-test.conll": "New_York B-LOC O\nis O B-LOC\n\n. O B-LOC\n\n"
    }
    (tmp_path / name).write_text("New_York\n")
    if name.endswith("txt"):
        with pytest.raises(UserError, match="found 1 column, expected 2 or more"):
            written(tmp_path, task, predictions, examples, keep_gold_tags=True)


def test_a_split_of_several_files_gives_each_its_own_tags(tmp_path):
    (tmp_path / "a.txt").write_text("the\tO\ncat\tO\n\nno\tO\n")
    (tmp_path / "aa.conllu").write_text("# x\n1\trome\t_\tNOUN\t_\t_\t_\t_\t_\t_\n\n")
    (tmp_path / "b.txt").write_text("one\n\ndog\n")
    options = FinetuneConfig(test_files=("a.txt", "aa.conllu", "b.txt"))
    task, examples = tagged(tmp_path, options)
    predictions = [("A", "B"), ("C",), ("D",), ("E",), ("F",)]
    result = written(tmp_path, task, predictions, examples, test_files=options.test_files)
    assert result == {
        "own-test-a.txt": "the\tA\ncat\tB\n\nno\tC\n",
        "own-test-aa.conllu": "# x\n1\trome\t_\tD\t_\t_\t_\t_\t_\t_\n\n",
        "own-test-b.txt": "one\tE\n\ndog\tF\n",
    }


def test_files_of_one_name_in_several_folders_are_refused(tmp_path):
    for name, words in (("x", "the\tO\ncat\tO\n"), ("y", "dog\tO\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.txt").write_text(words)
    options = FinetuneConfig(test_files=("x/test.txt", "y/test.txt"))
    task, examples = tagged(tmp_path, options)
    with pytest.raises(
        UserError, match="y/test.txt: found the name of another file that is predicted"
    ):
        written(tmp_path, task, [("A", "B"), ("C",)], examples, test_files=options.test_files)


def test_tags_of_a_compressed_file_are_written_as_text_under_its_name_without_that_ending(tmp_path):
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(b"the\tO\ncat\tO\n"))
    task, examples = tagged(tmp_path)
    assert written(tmp_path, task, [("A", "B")], examples) == {"own-test.txt": "the\tA\ncat\tB\n"}


def test_the_tag_may_stand_in_any_column(tmp_path):
    (tmp_path / "test.txt").write_text("the DT O\nrome NNP B-LOC\n")
    options = FinetuneConfig(label_column="1")
    task, examples = tagged(tmp_path, options)
    assert [one.tags for one in read_split(entry_of(task, options), "test", options, True)] == [
        ("DT", "NNP")
    ]
    assert written(tmp_path, task, [("X", "Y")], examples, label_column="1") == {
        "own-test.txt": "the X O\nrome Y B-LOC\n"
    }


def test_a_file_is_not_written_over_itself(tmp_path):
    folder = tmp_path / "new" / "out"
    folder.mkdir(parents=True)
    (folder / "own-test.txt").write_text("the\tO\n")
    options = FinetuneConfig(test_files=("own-test.txt",))
    entry = entry_of(f"own:tagging={folder}", options)
    examples = read_split(entry, "test", options, False)
    (folder / "test.txt").write_text("the\tO\n")
    predicted = PredictedSplit(entry, "test", examples, [("X",)])
    with pytest.raises(UserError, match="own-test.txt: found a file of the task's data, expected"):
        write_predictions(epath.Path(folder), [predicted], options)
    assert {path.name for path in folder.iterdir()} == {"own-test.txt", "test.txt"}
    assert (folder / "own-test.txt").read_text() == "the\tO\n"


def test_tags_of_what_was_no_file_of_lines_are_a_sentence_a_line(tmp_path):
    examples = [TaggedExample("0", ("the", "cat")), TaggedExample("1", ("rome",))]
    assert written(tmp_path, "own:tagging=tfds:x", [("O", "O"), ("B-LOC",)], examples) == {
        "own-test.txt": "O O\nB-LOC\n"
    }


def test_answers_are_what_squads_scripts_read(tmp_path):
    best = SpanAnswer("Zürich", 0.75, 2.0, 1.5)
    predictions = [
        SpanPrediction("Zürich", 0.75, -3.0, (best, SpanAnswer("in", 0.25, 1.0, 0.5))),
        SpanPrediction("", 0.9, 4.0, (SpanAnswer("", 0.9, 1.0, 1.0),)),
    ]
    examples = [QuestionExample("a", "where?", "in Zürich"), QuestionExample("b", "who?", "no one")]
    result = {
        name: json.loads(text)
        for name, text in written(tmp_path, "squad_v2=x", predictions, examples).items()
    }
    assert result["squad_v2-test.json"] == {"a": "Zürich", "b": ""}
    assert result["squad_v2-test-null_odds.json"] == {"a": -3.0, "b": 4.0}
    assert result["squad_v2-test-n_best.json"]["a"][0] == {
        "text": "Zürich", "probability": 0.75, "start_logit": 2.0, "end_logit": 1.5,
    }  # fmt: skip
    assert len(result) == 3


def test_choices_are_numbers_of_endings(tmp_path):
    examples = [
        ChoiceExample("7", "the cat", ("a", "b")),
        ChoiceExample("8", "the dog", ("a", "b")),
    ]
    predictions = [
        ChoicePrediction(1, np.float32([0.25, 0.75])),
        ChoicePrediction(0, np.float32([1, 0])),
    ]
    assert written(tmp_path, "swag=x", predictions, examples) == {
        "swag-test.tsv": "id\tprediction\tprobability\n7\t1\t0.7500\n8\t0\t1.0000\n"
    }


def test_texts_are_a_line_each_whatever_is_in_them(tmp_path):
    examples = [PairExample("1", "a"), PairExample("2", "b"), PairExample("3", "c")]
    result = written(tmp_path, "own:seq2seq=x", ["the  cat\nsees", "", "one"], examples)
    assert result == {"own-test.txt": "the cat sees\n\none\n"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "new").write_text("a file")
    with pytest.raises(UserError, match="new/out: cannot be written"):
        written(tmp_path, "own:seq2seq=x", ["a"], [PairExample("1", "a")])


def own_split(name, split="test"):
    entry = entry_of(f"{name}:seq2seq=x", FinetuneConfig())
    return PredictedSplit(entry, split, [PairExample("1", "a")], [name])


def test_files_of_all_splits_are_named_one_way_and_replace_older_ones(tmp_path):
    folder = epath.Path(tmp_path)
    (folder / "b-test.txt").write_text("old")
    splits = [own_split("a"), own_split("b"), own_split("a", "validation")]
    made = write_predictions(folder, splits, FinetuneConfig())
    names = ["a-test.txt", "b-test.txt", "a-validation.txt"]
    assert [[path.name for path in paths] for paths in made] == [[name] for name in names]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "a-test.txt": "a\n",
        "b-test.txt": "b\n",
        "a-validation.txt": "a\n",
    }


@pytest.mark.parametrize("failing", [UserError("no"), KeyboardInterrupt()])
def test_nothing_is_written_of_predictions_that_cannot_all_be_written(
    tmp_path, monkeypatch, failing
):
    folder = epath.Path(tmp_path)
    (folder / "a-test.txt").write_text("old")

    def fail(*_):
        raise failing

    monkeypatch.setattr("bertjax.tasks.tagging.kind.TaggingKind.write_predictions", fail)
    tags = PredictedSplit(entry_of("t:tagging=x", FinetuneConfig()), "test", [], [])
    with pytest.raises(type(failing)):
        write_predictions(folder, [own_split("a"), tags], FinetuneConfig())
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a-test.txt": "old"}


def test_two_splits_never_have_one_file(tmp_path):
    with pytest.raises(UserError, match="a-test.txt: found predictions of two splits"):
        write_predictions(epath.Path(tmp_path), [own_split("a")] * 2, FinetuneConfig())
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_several_processes_into_one_folder_are_each_whole(tmp_path):
    folder = epath.Path(tmp_path)
    examples = [PairExample(str(number), "a") for number in range(20_000)]
    entry = entry_of("a:seq2seq=x", FinetuneConfig())

    def write(word):
        predicted = PredictedSplit(entry, "test", examples, [word * 10] * len(examples))
        write_predictions(folder, [predicted], FinetuneConfig())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, "abcd" * 3))
    (path,) = folder.iterdir()
    lines = path.read_text().splitlines()
    assert len(lines) == len(examples)
    assert len(set(lines)) == 1
