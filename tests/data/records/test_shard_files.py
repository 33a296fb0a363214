import os
import threading

import numpy as np
import pytest
from etils import epath

from bertjax.data.records import record_format, shard_files, shard_memory
from bertjax.data.records.record_format import Schema
from bertjax.errors import UserError
from tests.factory import random_batch

SCHEMA = Schema(16, 4)
SIZE = SCHEMA.record_bytes


@pytest.fixture(autouse=True)
def long_ago(tmp_path, monkeypatch):
    """Files that were just written count as ones of long ago, so they are remembered."""
    monkeypatch.setattr(shard_memory, "RECENT_NS", 0)
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))


def written(folder, seed=0, sizes=(5, 0, 9)):
    """Write shards; return their paths and their entries of the manifest."""
    folder = epath.Path(folder)
    folder.mkdir()
    rng = np.random.default_rng(seed)
    paths = [folder / f"train-{number}.tfrecord" for number in range(len(sizes))]
    infos = []
    for path, size in zip(paths, sizes, strict=True):
        batches = [random_batch(rng, size)] if size else []
        infos.append(record_format.write_shard(path, "train", SCHEMA, batches))
    return paths, infos


def of_another_preparation(path):
    others, _ = written(path.parent.with_name("other"), seed=1)
    path.write_bytes(others[2].read_bytes())


def with_a_record_copied_over_another(path):
    content = path.read_bytes()
    # Neither the first nor the last one, whose checksums a run's record of its data has.
    path.write_bytes(content[:SIZE] + content[4 * SIZE : 5 * SIZE] + content[2 * SIZE :])


def with_two_records_exchanged(path):
    content = path.read_bytes()
    first, second = content[SIZE : 2 * SIZE], content[2 * SIZE : 3 * SIZE]
    path.write_bytes(content[:SIZE] + second + first + content[3 * SIZE :])


OTHERS = [of_another_preparation, with_a_record_copied_over_another, with_two_records_exchanged]


@pytest.mark.parametrize("change", OTHERS)
@pytest.mark.parametrize("skip_damaged", [False, True])
def test_records_that_are_whole_but_not_the_manifests_are_refused(tmp_path, change, skip_damaged):
    paths, infos = written(tmp_path / "prepared")
    shard_files.check_shards(paths, infos, SCHEMA)
    change(paths[2])
    raw = np.fromfile(paths[2], np.uint8).reshape(-1, SIZE)
    assert not record_format.damaged(raw).any()
    assert len(raw) == 9
    message = r"train-2\.tfrecord: found other bytes than were written \(each record is whole"
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            shard_files.check_shards(paths, infos, SCHEMA, skip_damaged=skip_damaged)
    with pytest.raises(UserError, match=message):
        shard_files.verify(paths[2], infos[2], SCHEMA)


def test_of_several_shards_with_other_bytes_the_first_is_named(tmp_path):
    paths, infos = written(tmp_path / "prepared", sizes=(3,) * 12)
    for path in paths[4:]:
        path.write_bytes(paths[0].read_bytes())
    for _ in range(3):
        with pytest.raises(UserError, match=r"train-4\.tfrecord"):
            shard_files.check_shards(paths, infos, SCHEMA)


def test_a_damaged_record_is_named_or_said_where_it_may_be_skipped(tmp_path, caplog):
    paths, infos = written(tmp_path / "prepared")
    content = bytearray(paths[0].read_bytes())
    content[3 * SIZE + 50] ^= 1
    paths[0].write_bytes(content)
    with pytest.raises(UserError, match=r"train-0.*other bytes .*\(record 3 is damaged\)"):
        shard_files.check_shards(paths, infos, SCHEMA)
    for _ in range(2):
        caplog.clear()
        shard_files.check_shards(paths, infos, SCHEMA, skip_damaged=True)
        assert "train-0.tfrecord: 1 of 5 records are damaged" in caplog.text


def reads(paths, infos, monkeypatch):
    """The names of the shards that a check reads."""
    read = []
    compare = shard_files.compare

    def noted(path, *arguments, **options):
        read.append(path.name)
        compare(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shard_files, "compare", noted)
        shard_files.check_shards(paths, infos, SCHEMA)
    return sorted(read)


def test_shards_are_read_once_and_again_when_touched(tmp_path, monkeypatch):
    paths, infos = written(tmp_path / "prepared")
    names = [path.name for path in paths]
    assert reads(paths, infos, monkeypatch) == names
    assert reads(paths, infos, monkeypatch) == []
    os.utime(paths[2], ns=(1, 1))  # the same bytes: read again, and good
    assert reads(paths, infos, monkeypatch) == [names[2]]
    assert reads(paths, infos, monkeypatch) == []


def test_a_shard_of_other_bytes_with_the_old_size_and_time_is_noticed(tmp_path):
    paths, infos = written(tmp_path / "prepared")
    for path in paths:
        os.utime(path, ns=(1, 1))
    shard_files.check_shards(paths, infos, SCHEMA)
    of_another_preparation(paths[2])
    os.utime(paths[2], ns=(1, 1))
    with pytest.raises(UserError, match=r"train-2\.tfrecord: found other bytes"):
        shard_files.check_shards(paths, infos, SCHEMA)


def test_what_another_process_compares_meanwhile_is_not_read(tmp_path, monkeypatch):
    paths, infos = written(tmp_path / "prepared", sizes=(3,) * 20)
    compare = shard_files.compare
    read = []

    def slow(path, *arguments, **options):
        read.append(path.name)
        compare(path, *arguments, **options)
        # The other process, which compares all others while this one reads its first.
        for other, info in zip(paths, infos, strict=True):
            compare(other, info, SCHEMA)

    monkeypatch.setattr(shard_files, "compare", slow)
    monkeypatch.setattr(shard_files, "THREADS", 1)
    shard_files.check_shards(paths, infos, SCHEMA)
    assert len(read) == 1


def test_an_interrupt_ends_the_reading(tmp_path, monkeypatch):
    paths, infos = written(tmp_path / "prepared", sizes=(3,) * 40)
    monkeypatch.setattr(shard_files, "THREADS", 1)
    # The reading of the second shard begins when the first is told of, and ends with the interrupt.
    interrupted = threading.Event()
    read = []
    digest_of = shard_files.digest_of

    def slow(file, stop):
        read.append(file.name)
        if len(read) > 1:
            assert interrupted.wait(60)
            assert stop.wait(60)
        return digest_of(file, stop)

    def interrupt(stage, done, total):
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_files, "digest_of", slow)
    with pytest.raises(KeyboardInterrupt):
        shard_files.check_shards(paths, infos, SCHEMA, progress=interrupt)
    assert len(read) <= 2
    monkeypatch.setattr(shard_files, "digest_of", digest_of)
    assert len(reads(paths, infos, monkeypatch)) == 39


def test_a_link_out_of_the_folder_is_taken_only_where_its_bytes_are_compared(tmp_path):
    paths, infos = written(tmp_path / "prepared")
    outside = tmp_path / "blob"
    paths[0].rename(outside)
    os.symlink(outside, paths[0])
    shard_files.map_records(paths[0], SCHEMA, infos[0])
    shard_files.check_shards(paths, infos, SCHEMA)
    unknown = record_format.ShardInfo(infos[0].name, "train", 5, infos[0].bytes, "", 60)
    with pytest.raises(
        UserError, match=r"train-0.*found a link to .*blob, expected a file in this"
    ):
        shard_files.map_records(paths[0], SCHEMA, unknown)
    outside.write_bytes(bytes(infos[0].bytes))
    with pytest.raises(UserError, match=r"train-0\.tfrecord: found other bytes"):
        shard_files.check_shards(paths, infos, SCHEMA)


def test_an_unreadable_shard_ends_in_one_line(tmp_path):
    paths, infos = written(tmp_path / "prepared")
    paths[0].unlink()
    paths[0].mkdir()
    with pytest.raises(UserError, match=r"train-0\.tfrecord: cannot be read \(Is a directory\)"):
        shard_files.check_shards(paths, infos, SCHEMA)
