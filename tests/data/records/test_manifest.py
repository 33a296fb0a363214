"""A manifest is read back, or refused with the field that no preparation writes."""

import dataclasses
import json

import pytest
from etils import epath

from bertjax.data.records.manifest import FILE, Manifest, read_manifest, write_manifest
from bertjax.data.records.record_format import Schema, ShardInfo
from bertjax.errors import UserError

MANIFEST = Manifest(
    schemas={"train": Schema(16, 0, word_starts=True), "validation": Schema(16, 3)},
    tokenizer_fingerprint="f",
    vocab_size=200,
    settings={"seed": 0},
    sources={"corpus.txt": "digest"},
    shards=(ShardInfo("train-0", "train", 2, 300, "digest", 9),),
    validation_unigram_entropy=2.5,
    counts={"documents": 3},
)


def test_what_is_written_is_read(tmp_path):
    write_manifest(epath.Path(tmp_path), MANIFEST)
    assert read_manifest(epath.Path(tmp_path)) == MANIFEST
    assert read_manifest(epath.Path(tmp_path / "none")) is None


@pytest.mark.parametrize("change,message", [
    ({"version": 1}, "found another version"),
    ({"vocab_size": "200"}, "vocab_size: found '200', expected a value of type int"),
    ({"vocab_size": -1}, "vocab_size: found -1, expected 0 or more"),
    ({"shards": None}, "shards: found None, expected a list"),
    ({"shards": [{**dataclasses.asdict(MANIFEST.shards[0]), "name": 3}]}, "shards[0]: name: found 3"),
    ({"shards": [{}]}, "shards[0]: found no field name"),
    ({"shards": [{**dataclasses.asdict(MANIFEST.shards[0]), "bytes": "x"}]}, "shards[0]: bytes: found 'x'"),
    ({"shards": [{**dataclasses.asdict(MANIFEST.shards[0]), "records": -2}]}, "records: found -2"),
    ({"shards": [{**dataclasses.asdict(MANIFEST.shards[0]), "split": "test"}]}, "found 'test', expected one of train, validation"),
    ({"schemas": {}}, "found no schema of train"),
    ({"schemas": {"train": {"max_seq_length": 10**30}}}, "max_seq_length: found an integer of 100 bits"),
    ({"counts": {"documents": []}}, "counts: documents: found a list of 0"),
    ({"validation_unigram_entropy": float("nan")}, "found nan, expected a finite number"),
    ({"sources": []}, "sources: found a list of 0, expected an object"),
    ({"snapshots": {"x": 1}}, "snapshots: x: found 1, expected an object"),
    ({"other": 1}, "found the field 'other'"),
])  # fmt: skip
def test_fields_of_other_types_are_refused(tmp_path, change, message):
    path = tmp_path / FILE
    write_manifest(epath.Path(tmp_path), MANIFEST)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError) as refused:
        read_manifest(epath.Path(tmp_path))
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json: (cannot be read as a manifest|found)"):
        read_manifest(epath.Path(tmp_path))
