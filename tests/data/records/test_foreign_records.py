import tempfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings

from bertjax.data.records import record_format
from bertjax.data.records.foreign_files import foreign_paths, map_file, record_spans
from bertjax.data.records.foreign_records import ForeignRecords
from bertjax.data.records.record_format import Schema
from bertjax.errors import UserError
from tests.data.records.test_record_format import drawn, shapes
from tests.factory import random_batch

SCHEMA = Schema(16, 4)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def foreign(path, batch, drop=(), floats=record_format.FLOATS, names=None, compression=""):
    """Write records one by one with TensorFlow, as the usual BERT data scripts do."""
    import tensorflow as tf

    names = names or {}
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in range(len(batch["input_ids"])):
            features = {}
            for name, values in batch.items():
                if name in floats and name not in drop:
                    features[name] = tf.train.Feature(
                        float_list=tf.train.FloatList(value=values[row])
                    )
                elif name not in drop:
                    features[names.get(name, name)] = tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[int(x) for x in values[row]])
                    )
            writer.write(
                tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            )


def test_records_of_other_scripts_read_as_ours_do(folder):
    batch = random_batch(np.random.default_rng(1), 9)
    foreign(folder / "train_examples.tfrecord-0", batch)
    foreign(folder / "eval_examples.tfrecord", {k: v[:2] for k, v in batch.items()})
    assert [p.name for p in foreign_paths(folder, "validation")] == ["eval_examples.tfrecord"]
    records = ForeignRecords(foreign_paths(folder, "train"), SCHEMA)
    record_numbers = np.array([8, 3, 3, 0])
    read = records.read(record_numbers)
    assert len(records) == 9
    for name in batch:
        assert np.array_equal(read[name], batch[name][record_numbers]), name
        assert read[name].dtype == batch[name].dtype


@settings(max_examples=40)
@given(shapes)
def test_records_of_other_scripts_have_the_same_values_whatever_their_shape(shape):
    schema, batch = drawn(shape)
    with tempfile.TemporaryDirectory() as name:
        foreign(Path(name) / "a.tfrecord", batch)
        records = ForeignRecords([epath.Path(name) / "a.tfrecord"], schema)
        read = records.read(np.arange(len(records)))
    assert records.max_id == max(batch["input_ids"].max(), batch["masked_lm_ids"].max())
    assert set(read) == set(batch)
    for feature, values in batch.items():
        assert np.array_equal(read[feature], values), feature


@pytest.mark.parametrize("feature,value,bound", [
    ("input_ids", -1, 2**31 - 1), ("input_ids", 2**32 + 7, 2**31 - 1), ("masked_lm_ids", -1, 2**31 - 1),
    ("masked_lm_positions", 16, 15), ("input_mask", 2, 1), ("next_sentence_labels", -1, 1),
])  # fmt: skip
def test_a_value_outside_its_range_is_named_with_its_record(folder, feature, value, bound):
    batch = random_batch(np.random.default_rng(1), 5)
    batch[feature] = batch[feature].astype(np.int64)
    batch[feature][3, 0] = value
    foreign(folder / "a.tfrecord", batch)
    with pytest.raises(
        UserError, match=rf"a\.tfrecord: record 3: {feature}: found {value}, expected 0 to {bound}$"
    ):
        ForeignRecords([folder / "a.tfrecord"], SCHEMA)


@pytest.mark.parametrize("weight", [-5.0, np.nan, np.inf])
def test_a_weight_that_no_loss_can_have_is_named_with_its_record(folder, weight):
    batch = random_batch(np.random.default_rng(1), 5)
    batch["masked_lm_weights"][3, 0] = weight
    foreign(folder / "a.tfrecord", batch)
    with pytest.raises(UserError, match=r"record 3: masked_lm_weights: found .*a finite weight"):
        ForeignRecords([folder / "a.tfrecord"], SCHEMA)


@pytest.mark.parametrize("floats,message", [
    ((), "masked_lm_weights: found a int64_list, expected a float_list"),
    ((*record_format.FLOATS, "input_mask"), "input_mask: found a float_list, expected a int64_list"),
])  # fmt: skip
def test_a_feature_of_the_other_kind_of_number_is_refused(folder, floats, message):
    foreign(folder / "a.tfrecord", random_batch(np.random.default_rng(1), 3), floats=floats)
    with pytest.raises(UserError, match=rf"a\.tfrecord: record 0: {message}"):
        ForeignRecords([folder / "a.tfrecord"], SCHEMA)


@pytest.mark.parametrize("data", [b"\xff\xff\xff some bytes", b"", b"plain text"])
def test_records_that_are_no_examples_are_refused(folder, data):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        writer.write(data)
    with pytest.raises(UserError, match=r"a\.tfrecord: record 0: .*found .* expected"):
        ForeignRecords([folder / "a.tfrecord"], SCHEMA)


@pytest.mark.parametrize("schema", [Schema(12, 4), Schema(16, 5)])
def test_records_of_another_length_are_refused_with_both_lengths(folder, schema):
    foreign(folder / "a.tfrecord", random_batch(np.random.default_rng(1), 3))
    with pytest.raises(
        UserError, match=r"a\.tfrecord: record 0: \w+: found (16|4) values, expected (12|5)"
    ):
        ForeignRecords([folder / "a.tfrecord"], schema)


def test_records_without_a_feature_are_refused(folder):
    foreign(folder / "a.tfrecord", random_batch(np.random.default_rng(1), 3), drop=("segment_ids",))
    with pytest.raises(
        UserError, match=r"a\.tfrecord: record 0: segment_ids: found 0 values, expected 16"
    ):
        ForeignRecords([folder / "a.tfrecord"], SCHEMA)


@pytest.mark.parametrize("cut", [1, 4, 5, 200])
def test_a_truncated_foreign_file_is_named_with_its_record(folder, cut):
    path = folder / "a.tfrecord"
    foreign(path, random_batch(np.random.default_rng(1), 3))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"a\.tfrecord: record 2: found"):
        ForeignRecords([path], SCHEMA)


def test_a_file_that_is_no_tfrecord_file_is_refused(folder):
    path = folder / "a.tfrecord"
    path.write_bytes(b"some text that is not framed at all")
    with pytest.raises(UserError, match=r"a\.tfrecord: record 0: found a broken header at byte 0"):
        ForeignRecords([path], SCHEMA)


def test_a_damaged_foreign_record_is_named(folder):
    path = folder / "a.tfrecord"
    foreign(path, random_batch(np.random.default_rng(1), 3))
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tfrecord: record 0 is damaged"):
        ForeignRecords([path], SCHEMA)


MASKED = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
GARDEN = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BERTJAX_CACHE", str(path))
    return path


def test_features_may_have_the_names_of_the_model_garden(folder):
    batch = random_batch(np.random.default_rng(1), 5)
    foreign(folder / "a.tfrecord", batch, names=GARDEN)
    records = ForeignRecords([folder / "a.tfrecord"], SCHEMA)
    read = records.read(np.arange(5))
    for name in batch:
        assert np.array_equal(read[name], batch[name]), name
    assert records.max_id == max(batch["input_ids"].max(), batch["masked_lm_ids"].max())
    with pytest.raises(UserError, match="record 0: input_word_ids: found 16 values, expected 12"):
        ForeignRecords([folder / "a.tfrecord"], Schema(12, 4))
    foreign(folder / "b.tfrecord", batch)
    with pytest.raises(
        UserError, match=r"b\.tfrecord: record 0: input_word_ids: found 0 values, expected 16"
    ):
        ForeignRecords([folder / "a.tfrecord", folder / "b.tfrecord"], SCHEMA)


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_gzip_files_are_read_whatever_their_name(folder, cache, name):
    batch = random_batch(np.random.default_rng(1), 5)
    foreign(folder / name, batch, compression="GZIP")
    for _ in range(2):
        read = ForeignRecords([folder / name], SCHEMA).read(np.arange(5))
        assert np.array_equal(read["input_ids"], batch["input_ids"])
        assert len(list(cache.iterdir())) == 1
    # Another file of the same name is not taken for it.
    foreign(folder / name, {k: v[:2] for k, v in batch.items()}, compression="GZIP")
    assert len(ForeignRecords([folder / name], SCHEMA)) == 2
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-20])
    with pytest.raises(UserError, match=rf"{name}: is truncated or no whole \.gz file"):
        ForeignRecords([folder / name], SCHEMA)
    assert len(list(cache.iterdir())) == 2


def test_a_file_that_is_not_compressed_may_begin_with_the_bytes_of_gzip(folder, cache):
    length = 0x1F | 0x8B << 8
    header = length.to_bytes(8, "little")
    data = bytes(length)
    framed = header + record_format.tfrecord_crc(header).tobytes() + data
    (folder / "a.tfrecord").write_bytes(framed + record_format.tfrecord_crc(data).tobytes())
    (span,) = record_spans(folder / "a.tfrecord", map_file(folder / "a.tfrecord"))
    assert span.tolist() == [12, 12 + length]
    assert not list(cache.iterdir())


def test_rows_without_masks_are_read_as_such_and_are_not_mixed_with_masked_ones(folder):
    batch = random_batch(np.random.default_rng(1), 5)
    foreign(folder / "a.tfrecord", batch, drop=MASKED)
    foreign(folder / "b.tfrecord", batch)
    a, b = folder / "a.tfrecord", folder / "b.tfrecord"
    records = ForeignRecords([a], SCHEMA, any_predictions=True)
    assert records.schema == Schema(16, 0)
    assert set(records.read(np.arange(5))) == set(batch) - set(MASKED)
    with pytest.raises(
        UserError,
        match=r"b\.tfrecord: record 0: found a masked row, expected one that is not masked",
    ):
        ForeignRecords([a, b], SCHEMA, any_predictions=True)
    with pytest.raises(
        UserError, match=r"a\.tfrecord: record 0: masked_lm_positions: found 0 values"
    ):
        ForeignRecords([b, a], SCHEMA, any_predictions=True)


def test_the_number_of_predictions_is_that_of_the_records_where_the_step_masks_anew(folder):
    batch = random_batch(np.random.default_rng(1), 5)
    foreign(folder / "a.tfrecord", batch)
    records = ForeignRecords([folder / "a.tfrecord"], Schema(16, 9), any_predictions=True)
    assert records.schema == SCHEMA
    with pytest.raises(UserError, match="masked_lm_positions: found 4 values, expected 9"):
        ForeignRecords([folder / "a.tfrecord"], Schema(16, 9))


def test_the_digest_is_that_of_the_records_wherever_their_files_are(folder, cache):
    batch = random_batch(np.random.default_rng(1), 9)
    foreign(folder / "a.tfrecord", batch)
    foreign(folder / "b.tfrecord", batch, compression="GZIP")
    batch["input_ids"][8, 1] ^= 1
    foreign(folder / "c.tfrecord", batch)
    paths = [folder / f"{name}.tfrecord" for name in "abc"]
    first, moved, other = (ForeignRecords([path], SCHEMA).digest() for path in paths)
    assert first == moved
    assert first != other
    there, back = ([paths[0], paths[2]], [paths[2], paths[0]])
    assert ForeignRecords(there, SCHEMA).digest() != ForeignRecords(back, SCHEMA).digest()
