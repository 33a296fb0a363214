import errno
import os
import resource
import signal
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.records import record_format
from bertjax.data.records.record_format import Schema
from bertjax.errors import UserError
from tests.factory import random_batch

shapes = st.tuples(st.integers(8, 64), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))


def drawn(shape):
    length, predictions, rows, seed = shape
    batch = random_batch(np.random.default_rng(seed), rows, length, predictions, 2**21)
    return Schema(length, predictions), batch


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert np.array_equal(a[name], b[name]), name


@given(shapes)
def test_decoding_gives_back_what_was_encoded(shape):
    schema, batch = drawn(shape)
    records = record_format.encode(schema, batch)
    assert records.shape == (len(batch["input_ids"]), schema.record_bytes)
    same(record_format.decode(schema, records), batch)
    assert not record_format.damaged(records).any()


@given(shapes)
def test_protobuf_and_tensorflow_read_the_same_values_in_our_records(shape):
    import tensorflow as tf

    schema, batch = drawn(shape)
    kinds = {n: tf.float32 if n in record_format.FLOATS else tf.int64 for n in batch}
    parsing = {n: tf.io.FixedLenFeature([schema.lengths[n]], kind) for n, kind in kinds.items()}
    for row, record in enumerate(record_format.encode(schema, batch)):
        data = record[record_format.HEADER_BYTES : -record_format.FOOTER_BYTES].tobytes()
        features = tf.train.Example.FromString(data).features.feature
        assert set(features) == set(batch)
        parsed = tf.io.parse_single_example(data, parsing)
        same(
            {name: value.numpy() for name, value in parsed.items()},
            {name: batch[name][row] for name in batch},
        )
        for name, values in batch.items():
            kind = "float_list" if name in record_format.FLOATS else "int64_list"
            assert list(getattr(features[name], kind).value) == values[row].tolist()


def test_tensorflow_reads_our_files(tmp_path):
    import tensorflow as tf

    schema, batch = Schema(16, 4), random_batch(np.random.default_rng(0), 7)
    info = record_format.write_shard(epath.Path(tmp_path) / "a.tfrecord", "train", schema, [batch])
    raw = list(tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord")).as_numpy_iterator())
    assert len(raw) == info.records == 7
    kinds = {n: tf.float32 if n in record_format.FLOATS else tf.int64 for n in batch}
    parsed = tf.io.parse_example(
        raw, {n: tf.io.FixedLenFeature([schema.lengths[n]], k) for n, k in kinds.items()}
    )
    same({name: value.numpy() for name, value in parsed.items()}, batch)


@pytest.mark.parametrize("value", [-1, 2**21])
def test_an_id_that_does_not_fit_is_refused(value):
    batch = random_batch(np.random.default_rng(0), 2)
    batch["input_ids"][1, 3] = value
    with pytest.raises(ValueError, match="input_ids"):
        record_format.encode(Schema(16, 4), batch)


@given(seed=st.integers(0, 2**31), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_data_is_noticed(seed, bit):
    schema, batch = Schema(16, 4), random_batch(np.random.default_rng(0), 3)
    records = record_format.encode(schema, batch)
    position = np.random.default_rng(seed).integers(record_format.HEADER_BYTES, schema.record_bytes)
    records[1, position] ^= 1 << bit
    assert record_format.damaged(records).tolist() == [False, True, False]


def test_a_shard_knows_its_size_checksum_and_largest_id(tmp_path):
    import hashlib

    batch = random_batch(np.random.default_rng(0), 5)
    path = epath.Path(tmp_path) / "x.tfrecord"
    info = record_format.write_shard(path, "validation", Schema(16, 4), [batch, batch])
    content = path.read_bytes()
    assert (info.split, info.records, info.bytes) == ("validation", 10, len(content))
    assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert info.max_id == max(batch["input_ids"].max(), batch["masked_lm_ids"].max())


@contextmanager
def file_size_limit(size):
    """Let the kernel refuse writes: no file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_refused_write_leaves_no_half_written_shard(tmp_path):
    batch = random_batch(np.random.default_rng(0), 50)
    refused = pytest.raises(UserError, match=r"x\.tfrecord: cannot be written \(File too large\)")
    with refused as caught, file_size_limit(4000):
        record_format.write_shard(
            epath.Path(tmp_path) / "x.tfrecord", "train", Schema(16, 4), [batch]
        )
    assert caught.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """Mount a real file system of 16 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_shards_and_no_half_written_one(tiny_disk):
    schema, folder = Schema(16, 4), epath.Path(tiny_disk)
    whole = record_format.write_shard(
        folder / "a.tfrecord", "train", schema, [random_batch(np.random.default_rng(0), 5)]
    )
    many = [random_batch(np.random.default_rng(0), 50)] * 4
    with pytest.raises(
        UserError, match=r"b\.tfrecord: cannot be written \(No space left on device\)"
    ):
        record_format.write_shard(folder / "b.tfrecord", "train", schema, many)
    assert [(path.name, path.stat().st_size) for path in tiny_disk.iterdir()] == [
        ("a.tfrecord", whole.bytes)
    ]
