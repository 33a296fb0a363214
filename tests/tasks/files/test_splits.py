import json
import os
import subprocess
import sys

import pytest

from bertjax.errors import UserError
from bertjax.tasks.files.splits import DataLocation, find_files, has_split, read_rows


@pytest.fixture
def folder(tmp_path):
    for name in (
        "train.tsv",
        "dev_matched.tsv",
        "validation_mismatched.jsonl.gz",
        "trainer.txt",
        ".test.tsv",
        "notes",
    ):
        (tmp_path / name).write_text("a\tb\n1\t2\n")
    return tmp_path


def error_of(function, *arguments):
    with pytest.raises(UserError) as caught:
        list(function(*arguments))
    return str(caught.value)


def test_splits_are_found_by_their_usual_names(folder):
    source = DataLocation(str(folder))
    for split, name in [
        ("train", "train.tsv"),
        ("validation_matched", "dev_matched.tsv"),
        ("validation_mismatched", "validation_mismatched.jsonl.gz"),
    ]:
        assert [path.name for path in find_files(source, split)] == [name]
        assert has_split(source, split)
    assert not has_split(source, "test")
    assert not has_split(source, "validation")
    assert not has_split(DataLocation(str(folder / "no")), "train")


def test_other_names_of_a_split_count_where_the_usual_ones_are_not_there(folder):
    stems = {"train": ("trainer",), "test": ("trainer",)}
    source = DataLocation(str(folder), stems=stems)
    assert [path.name for path in find_files(source, "train")] == ["train.tsv"]
    assert [path.name for path in find_files(source, "test")] == ["trainer.txt"]
    assert has_split(source, "test")


def test_named_files_are_joined_in_their_order(folder):
    (folder / "more.csv").write_text("c\nx\ny\n")
    source = DataLocation(str(folder), {"train": ("more.csv", "train.tsv")})
    rows = list(read_rows(source, "train"))
    assert [dict(row.values) for row in rows] == [{"c": "x"}, {"c": "y"}, {"a": "1", "b": "2"}]
    assert [row.number for row in rows] == [2, 3, 2]
    elsewhere = DataLocation(".", {"train": (str(folder / "more.csv"),)})
    assert len(list(read_rows(elsewhere, "train"))) == 2


def test_what_is_missing_is_said_with_what_there_is(folder):
    there = "dev_matched.tsv, notes, train.tsv, trainer.txt, validation_mismatched.jsonl.gz"
    message = error_of(find_files, DataLocation(str(folder)), "test")
    expected = "expected test.* (or finetune.test_files to name it)"
    assert message == f"{folder}, split test: found {there}, {expected}"
    named = DataLocation(str(folder), {"validation": ("trainer.txt", "rte9.xml")})
    assert (
        error_of(find_files, named, "validation")
        == f"{folder}, split validation: found {there}, expected rte9.xml"
    )
    gone = folder / "gone"
    assert (
        error_of(find_files, DataLocation(str(gone)), "train")
        == f"{gone}: found no such folder, expected a folder"
    )
    file = folder / "notes"
    assert (
        error_of(find_files, DataLocation(str(file)), "train")
        == f"{file}: found a file, expected a folder"
    )


def test_two_files_that_could_be_the_split_are_an_error(folder):
    (folder / "train.csv").write_text("a\n")
    message = error_of(find_files, DataLocation(str(folder)), "train")
    assert "split train: found train.csv, train.tsv, expected one file of train.*" in message


@pytest.mark.parametrize("content", ["", "a\tb\n", "\n\n"])
def test_a_split_without_a_row_is_an_error(tmp_path, content):
    (tmp_path / "dev.tsv").write_text(content)
    message = error_of(read_rows, DataLocation(str(tmp_path)), "validation")
    assert message == f"{tmp_path}, split validation: found no row, expected one or more"


TFDS_SCRIPT = """
import json, os
import numpy as np
import tensorflow_datasets as tfds
from bertjax.errors import UserError
from bertjax.tasks.classification.glue import glue_task
from bertjax.tasks.files.splits import DataLocation, has_split, read_rows
from bertjax.tasks.classification.examples import read_examples


class TinyPairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        names = ["entailment", "not_entailment"]
        features = {
            "sentence1": tfds.features.Text(), "sentence2": tfds.features.Text(), "idx": np.int32, "score": np.float32,
            "label": tfds.features.ClassLabel(names=names),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["x", "y"])),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(3, 1), "test": self._generate_examples(2, 0)}

    def _generate_examples(self, count, labelled):
        for i in range(count):
            label = i % 2 if labelled else -1
            yield i, {"sentence1": f"完 {i}", "sentence2": "b", "idx": i, "score": 1.5, "label": label, "tags": [1, 0]}


def show(function):
    try:
        print(json.dumps(function()))
    except UserError as error:
        print(json.dumps(str(error)))


TinyPairs(data_dir=os.environ["TFDS_DATA_DIR"]).download_and_prepare()
source = DataLocation("tfds:tiny_pairs", {"validation": ("train[2:]", "test")})
show(lambda: sorted((dict(row.values) for row in read_rows(source, "train")), key=lambda row: row["idx"])[:2])
show(lambda: [e.label for e in read_examples(source, "test", task=glue_task("rte"), unlabelled=True)])
show(lambda: len(list(read_rows(source, "validation"))))
show(lambda: [has_split(source, split) for split in ("train", "dev")])
show(lambda: list(read_rows(source, "dev")))
show(lambda: read_examples(source, "test", task=glue_task("rte")))
show(lambda: next(read_rows(source, "train")).value("no"))
"""


@pytest.mark.slow
def test_a_tfds_data_set_gives_the_same_rows(tmp_path):
    # Another process, since TFDS reads TFDS_DATA_DIR when it is imported.
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", TFDS_SCRIPT]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    rows, labels, joined, there, no_split, no_label, no_column = map(
        json.loads, done.stdout.splitlines()[-7:]
    )
    common = {"sentence2": "b", "score": 1.5, "tags": ["y", "x"]}
    assert rows == [
        {"sentence1": "完 0", "idx": 0, "label": "entailment", **common},
        {"sentence1": "完 1", "idx": 1, "label": "not_entailment", **common},
    ]
    assert labels == [None, None]
    assert joined == 3
    assert there == [True, False]
    assert no_split.startswith("tfds:tiny_pairs, dev: found the splits ")
    assert "train" in no_split
    assert (
        no_label
        == "tfds:tiny_pairs, split test: found no example with a label, expected one or more"
    )
    assert "example 0: found the columns" in no_column


def test_a_split_in_numbered_parts_is_read_whole_or_refused(tmp_path):
    digest = "-a09b74b3ef9c3b56"
    for number in range(3):
        name = f"train-{number:05d}-of-00003{digest}.jsonl"
        (tmp_path / name).write_text(f'{{"n": {number}}}\n')
    (tmp_path / "validation-00000-of-00001.jsonl").write_text('{"n": 9}\n')
    source = DataLocation(str(tmp_path))
    assert [row.values["n"] for row in read_rows(source, "train")] == [0, 1, 2]
    assert [row.values["n"] for row in read_rows(source, "validation")] == [9]
    assert has_split(source, "train")
    assert not has_split(source, "test")
    (tmp_path / f"train-00001-of-00003{digest}.jsonl").unlink()
    assert "found train-00000-of-00003" in error_of(find_files, source, "train")
    assert error_of(find_files, source, "train").endswith("expected all 3 parts")
    (tmp_path / "train.jsonl").write_text("{}")
    assert "expected one file of train.*" in error_of(find_files, source, "train")
