import os
import zlib

import numpy as np
import pytest
from etils import epath

from bertjax.data.records.foreign_files import foreign_paths, split_told_by
from bertjax.data.records.foreign_records import describe_files
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
    files = named(folder, f"{name}.tfrecord-00000-of-00001")
    assert len(files[split or "train"]) == 1
    assert sum(map(len, files.values())) == 1


def test_the_folders_of_files_tell_their_split_too(folder):
    files = named(
        folder, "train/a.tfrecord", "train/deep/b.tf_record", "dev/part-0.tfrecord", "other/c.tfrecord",
        "other/test.tfrecord", ".hidden/d.tfrecord", "tokenizer/vocab.txt",
    )  # fmt: skip
    assert files == {
        "train": ["other/c.tfrecord", "train/a.tfrecord", "train/deep/b.tf_record"],
        "validation": ["dev/part-0.tfrecord", "other/test.tfrecord"],
    }
    # Where the folder has files itself, those alone are read.
    assert named(folder, "train.tfrecord") == {"train": ["train.tfrecord"], "validation": []}


def test_a_folder_of_prepared_folders_is_no_folder_of_another_script(folder):
    files = named(folder, "one/manifest.json", "one/train.tfrecord", "two/.work/plan.json", "two/dev.tfrecord")  # fmt: skip
    assert files == {"train": [], "validation": []}


def test_a_folder_that_spark_wrote_has_the_records_in_it(folder):
    files = named(
        folder, "train.tfrecord/part-r-00000", "train.tfrecord/_SUCCESS", "train.tfrecord/.part-r-00000.crc",
        "eval.tfrecord/part-r-00000",
    )  # fmt: skip
    assert files == {
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
        "train: 49 rows in 7 files: " + ", ".join(f"latest-{i}.tfrecord" for i in range(5)) + " and 2 more"
        "; 16 ids and 4 predictions a row, ids to 62, segments to 1",
        "validation: 2 rows in 1 file: dev.tfrecord; 16 ids and 4 predictions a row, ids to 62, segments to 1",
    ]  # fmt: skip
    assert describe_files(folder) == lines
    assert summarize(folder).splitlines()[1:] == lines


def test_a_folder_without_files_of_any_script_is_refused(folder):
    with pytest.raises(UserError, match=r"found no manifest\.json"):
        summarize(folder)


def inspect_error(folder):
    with pytest.raises(UserError) as caught:
        summarize(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def test_inspect_refuses_what_training_would_refuse(folder):
    batch = random_batch(np.random.default_rng(1), 3)
    long = {
        k: np.pad(v, [(0, 0), (0, 4)])
        for k, v in batch.items()
        if k.startswith(("input", "segment"))
    }
    foreign(folder / "a.tfrecord", batch)
    foreign(folder / "b.tfrecord", batch | long)
    assert inspect_error(folder) == (
        "b.tfrecord: record 0: input_ids: found 20 values, expected 16, as in the first record"
    )
    wrong = batch | {"next_sentence_labels": batch["next_sentence_labels"] + 7}
    foreign(folder / "b.tfrecord", wrong)
    assert inspect_error(folder).startswith("b.tfrecord: record 0: next_sentence_labels: found ")
    foreign(folder / "b.tfrecord", batch, drop=["input_ids"])
    assert inspect_error(folder).startswith(
        "b.tfrecord: record 0: input_ids: found 0 values, expec"
    )
    foreign(folder / "a.tfrecord", batch, drop=["input_ids"])
    assert inspect_error(folder).startswith(
        "a.tfrecord: record 0: input_ids: found 0 values, expec"
    )
    with tf_writer(folder / "a.tfrecord") as writer:
        writer.write(b"\xff no example")
    assert inspect_error(folder) == (
        "a.tfrecord: record 0: found other bytes, expected a tf.train.Example"
    )


def tf_writer(path):
    import tensorflow as tf

    return tf.io.TFRecordWriter(str(path))


def test_inspect_describes_rows_without_masks_and_labels(folder):
    batch = random_batch(np.random.default_rng(1), 3)
    masks = [name for name in batch if name.startswith("masked_lm")]
    foreign(folder / "a.tfrecord", batch, drop=[*masks, "next_sentence_labels"])
    foreign(folder / "dev.tfrecord", batch)
    train, heldout = describe_files(folder)
    assert "; 16 ids and 0 predictions a row, ids to " in train
    assert "; 16 ids and 4 predictions a row, ids to " in heldout


def test_a_link_back_to_a_folder_above_adds_no_file_and_one_to_nothing_is_refused(folder):
    batch = random_batch(np.random.default_rng(1), 2)
    for name in ("sub", "sub/deep"):
        (folder / name).mkdir()
    foreign(folder / "sub" / "deep" / "a.tfrecord", batch)
    for link in ("loop", "sub/loop", "sub/deep/dev"):
        os.symlink(folder, folder / link)
    os.symlink("..", folder / "sub" / "up")
    assert foreign_paths(folder, "train") == [folder / "sub" / "deep" / "a.tfrecord"]
    assert foreign_paths(folder, "validation") == []
    os.symlink("b.tfrecord", folder / "sub" / "b.tfrecord")
    assert inspect_error(folder).startswith("sub/b.tfrecord: cannot be read (Too many levels of")
    (folder / "sub" / "b.tfrecord").unlink()
    os.symlink("none", folder / "sub" / "b.tfrecord")
    assert inspect_error(folder) == "sub/b.tfrecord: cannot be read (No such file or directory)"


def test_the_other_compression_of_tensorflow_is_named(folder):
    foreign(folder / "a.tfrecord", random_batch(np.random.default_rng(1), 4), compression="ZLIB")
    assert inspect_error(folder) == (
        "a.tfrecord: record 0: found ZLIB data (GZIP is read), expected a TFRecord header"
    )
    (folder / "a.tfrecord").write_bytes(zlib.compress(b"no record" * 9))
    assert "found a broken header at byte 0" in inspect_error(folder)


def test_a_damaged_gzip_file_is_one_line(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    path = folder / "a.tfrecord.gz"
    foreign(path, random_batch(np.random.default_rng(1), 4), compression="GZIP")
    whole = path.read_bytes()
    for position in [2, 3, 9, 10, 11, 40, len(whole) // 2, len(whole) - 6, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        if position == 9:  # the system that made it
            assert summarize(folder)
        else:
            assert inspect_error(folder).startswith("a.tfrecord.gz: ")
    for size in (1, 2, 10, 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert inspect_error(folder).startswith("a.tfrecord.gz: ")
