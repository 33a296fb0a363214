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


def test_a_damaged_record_is_named(folder):
    written(folder)
    path = folder / "train-2.tfrecord"
    content = bytearray(path.read_bytes())
    content[3 * SCHEMA.record_bytes + 100] ^= 4
    path.write_bytes(content)
    records = PreparedRecords(folder, read_manifest(folder), "train")
    records.read(np.arange(8))
    with pytest.raises(UserError, match=r"train-2\.tfrecord: record 3 is damaged"):
        records.read(np.arange(14))


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


def test_a_refused_write_leaves_the_manifest_that_was_there(folder):
    write_manifest(folder, manifest_of([], vocab_size=7))
    refused = pytest.raises(
        UserError, match=r"manifest\.json: cannot be written \(File too large\)"
    )
    with refused, file_size_limit(100):
        write_manifest(folder, manifest_of([], vocab_size=8))
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert read_manifest(folder).vocab_size == 7
