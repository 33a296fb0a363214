import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from bertjax.config import DataConfig, to_dict
from bertjax.data.records import record_format
from bertjax.data.records.manifest import Manifest, read_manifest, write_manifest
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.record_format import Schema
from bertjax.errors import UserError
from tests.data.records.test_record_format import file_size_limit
from tests.factory import random_batch

SCHEMA = Schema(16, 4)


def manifest_of(infos, **changes):
    return Manifest(**{
        "schemas": {"train": SCHEMA, "validation": SCHEMA}, "tokenizer_fingerprint": "f" * 64, "vocab_size": 64, "settings": {"data": to_dict(DataConfig())}, "sources": {},
        "shards": tuple(infos), "validation_unigram_entropy": 1.0, "counts": {},
    } | changes)  # fmt: skip


def written(folder, sizes=(5, 0, 9)):
    """Write prepared shards into a folder; return the batch of all their records."""
    batch = random_batch(np.random.default_rng(0), sum(sizes))
    infos, begin = [], 0
    for number, size in enumerate(sizes):
        part = {name: values[begin : begin + size] for name, values in batch.items()}
        infos.append(
            record_format.write_shard(folder / f"train-{number}.tfrecord", "train", SCHEMA, [part])
        )
        begin += size
    write_manifest(folder, manifest_of(infos))
    return batch


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_rows_come_in_the_order_asked_for_across_shards(folder):
    batch = written(folder)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    record_numbers = np.array([13, 0, 4, 5, 0, 12])
    read = records.read(record_numbers)
    assert len(records) == 14
    assert records.max_id == max(batch["input_ids"].max(), batch["masked_lm_ids"].max())
    for name in batch:
        assert np.array_equal(read[name], batch[name][record_numbers]), name


def damage(path, number):
    """Change a bit of a record in place, as a disk might."""
    with Path(path).open("r+b") as file:
        file.seek(number * SCHEMA.record_bytes + 100)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


def test_a_record_that_is_damaged_after_the_shards_were_compared_is_named(folder):
    written(folder)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    records.read(np.arange(8))
    damage(folder / "train-2.tfrecord", 3)
    records.read(np.arange(8))
    with pytest.raises(UserError, match=r"train-2\.tfrecord: record 3 is damaged"):
        records.read(np.arange(14))


def test_no_record_is_read_of_shards_that_are_not_the_manifests(folder):
    written(folder)
    damage(folder / "train-2.tfrecord", 3)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    for _ in range(2):
        with pytest.raises(UserError, match=r"train-2\.tfrecord: found other bytes than were"):
            records.read(np.array([0]))


def test_all_shards_are_compared_once_for_each_reader(folder):
    written(folder)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    calls = []
    records.check_shards(lambda *call: calls.append(call))
    records.check_shards(lambda *call: calls.append(call))
    records.read(np.arange(14))
    assert calls == [("check shards", done, 3) for done in (1, 2, 3)]


def without_digests(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    for shard in values["shards"]:
        del shard["sha256"]
    path.write_text(json.dumps(values))


def test_a_manifest_without_checksums_is_read_and_that_is_said_once(folder, caplog):
    batch = written(folder)
    without_digests(folder)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    assert np.array_equal(records.read(np.arange(14))["input_ids"], batch["input_ids"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: the manifest has no checksums of the train shards, so they are not compared"
    ]


@pytest.mark.parametrize("damage,message", [
    (lambda p: p.write_bytes(p.read_bytes()[:-1]), r"train-0\.tfrecord: found \d+ bytes, expected \d+ bytes"),
    (lambda p: p.unlink(), r"train-0\.tfrecord: found no file"),
])  # fmt: skip
def test_a_truncated_or_missing_shard_is_named_at_opening(folder, damage, message):
    written(folder)
    damage(folder / "train-0.tfrecord")
    with pytest.raises(UserError, match=message):
        PreparedRecords(folder, read_manifest(folder), "train")


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[]", '{"version": 99}', '{"version": 2, "schemas": {"train": 3}}']
)
def test_a_broken_manifest_is_named(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["../train-0.tfrecord", "/etc/passwd", "a/b", "..", "", "a\\b"])
def test_a_shard_whose_name_leads_out_of_the_folder_is_refused(folder, name):
    written(folder)
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    values["shards"][1]["name"] = name
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"manifest\.json: shards: found the name .*, expected the"):
        read_manifest(folder)


def test_a_refused_write_leaves_the_manifest_that_was_there(folder):
    write_manifest(folder, manifest_of([], vocab_size=7))
    refused = pytest.raises(
        UserError, match=r"manifest\.json: cannot be written \(File too large\)"
    )
    with refused, file_size_limit(100):
        write_manifest(folder, manifest_of([], vocab_size=8))
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert read_manifest(folder).vocab_size == 7
