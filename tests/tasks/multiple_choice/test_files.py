import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.multiple_choice.files import (
    CODAH,
    SWAG_STEMS,
    cross_validation,
    fold_of,
    read_choice_file,
    read_choices,
)
from bertjax.tasks.multiple_choice.kind import ChoiceKind
from bertjax.tasks.registry import entry_of

SWAG_TEST = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3"
SWAG = [
    f"{SWAG_TEST},label",
    '7,film-94,18,He sits. The cat,He sits.,The cat,gold,"purrs, then ""sings"".",barks.,flies.,drives.,2',
    "8,clip_a,19,We cook. Someone,We cook.,Someone,gen,eats.,runs.,reads.,sleeps.,0",
]


def written(folder, name, lines):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def test_swag_gives_the_first_sentence_and_endings_after_the_start_of_the_second(tmp_path):
    result = read_choice_file(written(tmp_path, "train.csv", SWAG))
    assert result == [
        ChoiceExample(
            "7", "He sits.", ('purrs, then "sings".', "barks.", "flies.", "drives."), "The cat", 2
        ),
        ChoiceExample("8", "We cook.", ("eats.", "runs.", "reads.", "sleeps."), "Someone", 0),
    ]
    unlabelled = [SWAG_TEST, *(line.rsplit(",", 1)[0] for line in SWAG[1:])]
    result = read_choice_file(written(tmp_path, "test.csv", unlabelled))
    assert [(example.id, example.label) for example in result] == [("7", None), ("8", None)]


def test_a_folder_is_read_split_by_split(tmp_path):
    written(tmp_path, "train.csv", SWAG)
    written(tmp_path, "val.csv", SWAG[:2])
    source = DataLocation(str(tmp_path), stems=SWAG_STEMS)
    assert read_choices(source, "train") == read_choice_file(tmp_path / "train.csv")
    assert [example.id for example in read_choices(source, "validation")] == ["7"]


def test_codah_as_it_is_published_is_read_whole(shared_data):
    result = read_choice_file(shared_data / "tasks" / "codah" / "full_data.tsv", CODAH)
    assert len(result) == 2776
    assert result[4] == ChoiceExample(
        "4",
        "I am feeling hungry. I think I will",
        ("call my mother.", "have some ravioli.", "fly out the window.", "go on a run outside."),
        label=1,
    )
    assert [sum(example.label == label for example in result) for label in range(4)] == [
        689,
        684,
        697,
        706,
    ]
    sizes = {name: len(split) for name, split in cross_validation(result).items()}
    assert sizes == {"train": 1690, "validation": 535, "test": 551}


def test_a_quote_is_text_in_a_tsv_and_may_hold_lines_in_a_csv(tmp_path):
    path = written(tmp_path, "a.tsv", ['o\tHe says "oh.\t"a\tb\tc\td\t3'])
    assert read_choice_file(path, CODAH) == [
        ChoiceExample("0", 'He says "oh.', ('"a', "b", "c", "d"), label=3)
    ]
    path = written(tmp_path, "b.csv", ["context,ending0,ending1", '"two', 'lines",a,b', "one,c,d"])
    assert [example.context for example in read_choice_file(path)] == ["two\nlines", "one"]


def test_json_lines_hold_a_list_of_endings_or_a_column_each(tmp_path):
    records = [
        {"context": "c", "endings": ["a", "b", "d"], "label": 2, "id": 17},
        {"context": "c", "ending0": "a", "ending1": "b", "start": "s", "label": None, "other": 1},
        {"context": "c", "endings": ["a", "b"], "label": -1},
    ]
    text = "\n".join(json.dumps(record) for record in records) + "\n\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read_choice_file(tmp_path / "a.jsonl.gz") == [
        ChoiceExample("17", "c", ("a", "b", "d"), label=2),
        ChoiceExample("1", "c", ("a", "b"), "s"),
        ChoiceExample("2", "c", ("a", "b")),
    ]


@pytest.mark.parametrize("name,lines,message", [
    ("a.csv", [*SWAG, "9,x,1"], r"a\.csv, line 4: found 3 columns, expected 12 \(, video-id, fold-ind"),
    ("a.csv", [*SWAG, SWAG[1][:-1] + "4"], r"a\.csv, line 4: label: found '4', expected 0 to 3, the number of an ending"),
    ("a.csv", ["context,ending0,ending1,label", '"two', 'lines",a,b,0', "c,a,b,yes"], r"a\.csv, line 4: label: found 'yes', expected 0 to 1"),
    ("a.csv", ["context,ending0,ending1", "a,b,c", '"never,closed'], r"a\.csv, line 3: found broken CSV"),
    ("a.csv", ["context,ending0,label", "a,b,0"], r"a\.csv, line 2: found the columns context, ending0, label, expected endings, a list"),
    ("a.tsv", ["text\tending0\tending1", "a\tb\tc"], r"a\.tsv, line 2: found the columns text, ending0, ending1, expected context or sent1"),
    ("a.jsonl", ["", "{"], r"a\.jsonl, line 2: found broken JSON"),
    ("a.jsonl", ["[1]"], r"a\.jsonl, item 1: found JSON of type int, expected an object"),
    ("a.jsonl", ['{"context": "c", "endings": ["a", 5]}'], r"a\.jsonl, line 1: ending1: found 5, expected text"),
    ("a.jsonl", ['{"context": "c", "endings": ["a", "b"], "label": 2.0}'], r"line 1: label: found 2\.0, expected 0 to 1"),
    ("a.jsonl", ['{"context": "c", "endings": ["a", "b"], "label": true}'], "line 1: label: found True, expected 0 to 1"),
    ("a.csv", SWAG[:1], r"a\.csv: found no examples, expected one or more"),
    ("a.doc", SWAG, r"a\.doc: found the ending '\.doc', expected one of"),
])  # fmt: skip
def test_mistakes_are_named_by_file_and_line(tmp_path, name, lines, message):
    with pytest.raises(UserError, match=message):
        read_choice_file(written(tmp_path, name, lines))


def test_a_file_that_is_not_there_or_not_utf_8_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_choice_file(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"context,ending0,ending1\na,b,\xff\n")
    with pytest.raises(UserError, match=r"a\.csv, line 2: found the byte 0xff"):
        read_choice_file(tmp_path / "a.csv")


def example(context):
    return ChoiceExample("", context, ("a", "b"))


@given(st.lists(st.text(max_size=3).map(example), max_size=60), st.integers(3, 7))
def test_each_example_is_tested_once_and_equal_contexts_stay_together(examples, folds):
    tested = []
    for fold in range(folds):
        split = cross_validation(examples, fold, folds)
        after = cross_validation(examples, (fold + 1) % folds, folds)
        assert split["validation"] == after["test"]
        assert sorted(map(id, itertools.chain(*split.values()))) == sorted(map(id, examples))
        contexts = [{each.context for each in part} for part in split.values()]
        assert sum(map(len, contexts)) == len(set().union(*contexts))
        tested += split["test"]
    assert sorted(map(id, tested)) == sorted(map(id, examples))


def test_folds_follow_from_the_context_alone_and_must_exist():
    assert [fold_of(example(text)) for text in ("a", "b", "c", "I think I will", "")] == [
        3,
        3,
        0,
        4,
        1,
    ]
    with pytest.raises(UserError, match="fold: found 5, expected 0 to 4"):
        cross_validation([], 5)
    with pytest.raises(UserError, match="folds: found 2, expected 3 or more"):
        cross_validation([], 0, 2)


def test_labels_of_columns_with_missing_values_are_read_and_the_missing_ones_counted(
    tmp_path, caplog
):
    caplog.set_level("INFO", "bertjax")
    # As pandas writes a column of integers with a missing value.
    lines = ["context,ending0,ending1,label", "c,a,b,1.0", "c,a,b,", "d,a,b,NaN", "e,a,b,-1.0"]
    written(tmp_path, "train.csv", lines)
    (tmp_path / "dev.csv").write_text("\n".join(lines[:1] + lines[2:]))
    entry = entry_of(f"own:choice={tmp_path}", FinetuneConfig())
    labelled = ChoiceKind().read_split(entry, "train", FinetuneConfig(), True)
    assert [example.label for example in labelled] == [1]
    assert caplog.messages == [
        f"{tmp_path}, split train: examples without a label, which were left out: 3 of 4"
    ]
    every = ChoiceKind().read_split(entry, "train", FinetuneConfig(), False)
    assert [example.label for example in every] == [1, None, None, None]
    with pytest.raises(UserError, match="found no example with a label, expected one or more"):
        ChoiceKind().read_split(entry, "validation", FinetuneConfig(), True)
