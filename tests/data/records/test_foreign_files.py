import numpy as np
import pytest
from etils import epath

from bertjax.data.records.foreign_files import describe_files, foreign_paths, split_told_by
from bertjax.data.records.summary import summarize
from bertjax.errors import UserError
from tests.data.records.test_foreign_records import foreign
from tests.factory import random_batch


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def named(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return {
        split: [str(path.relative_to(folder)) for path in foreign_paths(folder, split)]
        for split in ("train", "validation")
    }


@pytest.mark.parametrize("name,split", [
    ("latest_news", ""), ("contest", ""), ("devanagari", ""), ("device", ""), ("invalid", ""), ("medieval", ""),
    ("retrieval", ""), ("Devon", ""), ("testament", ""), ("attestation-00001-of-00002", ""), ("pretraining", ""), ("\u00e9valuer", ""), ("wiki", ""), ("Protest", ""),
    ("evaluation", "validation"), ("eval_0", "validation"), ("dev-00000-of-00001", "validation"), ("validation", "validation"), ("test2", "validation"),
    ("wiki.dev", "validation"), ("TEST", "validation"), ("WikiTest", "validation"), ("devSet3", "validation"), ("EnglishDEV", "validation"), ("valid1", "validation"),
    ("news-val", "validation"), ("nli_tests", "validation"), ("held_out", "validation"), ("pretraining_dev", "validation"), ("testset", "validation"), ("DEVset", "validation"),
    ("train_test", "train"), ("Train-dev", "train"), ("train0", "train"), ("trainEval", "train"), ("latest_train", "train"),
])  # fmt: skip
def test_the_split_is_told_by_whole_words_of_the_name_and_train_wins(folder, name, split):
    assert split_told_by(f"{name}.tfrecord") == split
    found = named(folder, f"{name}.tfrecord-00000-of-00001")
    assert len(found[split or "train"]) == 1
    assert sum(map(len, found.values())) == 1


def test_the_folders_of_files_tell_their_split_too(folder):
    found = named(
        folder, "train/a.tfrecord", "train/deep/b.tf_record", "dev/part-0.tfrecord", "other/c.tfrecord",
        "other/test.tfrecord", ".hidden/d.tfrecord", "tokenizer/vocab.txt",
    )  # fmt: skip
    assert found == {
        "train": ["other/c.tfrecord", "train/a.tfrecord", "train/deep/b.tf_record"],
        "validation": ["dev/part-0.tfrecord", "other/test.tfrecord"],
    }
    # Where the folder has files itself, those alone are read.
    assert named(folder, "train.tfrecord") == {"train": ["train.tfrecord"], "validation": []}


def test_a_folder_of_prepared_folders_is_no_folder_of_another_script(folder):
    found = named(folder, "one/manifest.json", "one/train.tfrecord", "two/.work/plan.json", "two/dev.tfrecord")  # fmt: skip
    assert found == {"train": [], "validation": []}


def test_a_folder_that_spark_wrote_has_the_records_in_it(folder):
    found = named(
        folder, "train.tfrecord/part-r-00000", "train.tfrecord/_SUCCESS", "train.tfrecord/.part-r-00000.crc",
        "eval.tfrecord/part-r-00000",
    )  # fmt: skip
    assert found == {
        "train": ["train.tfrecord/part-r-00000"],
        "validation": ["eval.tfrecord/part-r-00000"],
    }


def test_a_file_whose_name_and_folder_disagree_is_refused(folder):
    with pytest.raises(
        UserError,
        match=r"train/dev\.tfrecord: found a file of both splits by its names, dev.tfrecord and train",
    ):
        named(folder, "train/dev.tfrecord")


def test_files_and_rows_of_each_split_are_described(folder):
    batch = random_batch(np.random.default_rng(1), 7)
    for number in range(7):
        foreign(folder / f"latest-{number}.tfrecord", batch)
    foreign(folder / "dev.tfrecord", {k: v[:2] for k, v in batch.items()})
    lines = [
        "train: 49 rows in 7 files: " + ", ".join(f"latest-{i}.tfrecord" for i in range(5)) + " and 2 more",
        "validation: 2 rows in 1 file: dev.tfrecord",
    ]  # fmt: skip
    assert describe_files(folder) == lines
    assert summarize(folder).splitlines()[1:] == lines


def test_a_folder_without_files_of_any_script_is_refused(folder):
    with pytest.raises(UserError, match=r"found no manifest\.json"):
        summarize(folder)
