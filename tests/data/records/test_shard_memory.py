import json
import os
import shutil

import pytest
from etils import epath

from bertjax.data.records import shard_memory
from bertjax.data.records.shard_memory import facts_of, is_remembered, remember

DIGEST = "d" * 64
OTHER = "e" * 64


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shard(tmp_path, cache, monkeypatch):
    """A file that counts as one of long ago."""
    monkeypatch.setattr(shard_memory, "RECENT_NS", 0)
    path = epath.Path(tmp_path / "prepared" / "train-0.tfrecord")
    path.parent.mkdir()
    path.write_bytes(b"records")
    return path


def noted(path, digest=DIGEST):
    with path.open("rb") as file:
        remember(path, digest, facts_of(file))


def test_a_file_is_remembered_with_the_digest_that_was_checked(shard, cache):
    assert not is_remembered(shard, DIGEST)
    noted(shard)
    assert is_remembered(shard, DIGEST)
    assert not is_remembered(shard, OTHER)
    assert [path.name for path in (shard.parent / ".checked").iterdir()] == [
        "train-0.tfrecord.json"
    ]
    assert not cache.exists()


def overwritten(path):
    path.write_bytes(b"RECORDS")


def overwritten_with_the_old_time(path):
    before = os.stat(path)
    path.write_bytes(b"RECORDS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


def replaced_with_the_old_time(path):
    before = os.stat(path)
    other = path.with_name("other")
    other.write_bytes(b"RECORDS")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def touched(path):
    os.utime(path)


@pytest.mark.parametrize(
    "change", [overwritten, overwritten_with_the_old_time, replaced_with_the_old_time, touched]
)
def test_a_file_that_changed_in_any_way_is_not_remembered(shard, change):
    noted(shard)
    # Past the tick of the clock, which is what `RECENT_NS` waits for.
    stamp = os.stat(shard).st_ctime_ns
    probe = shard.with_name("probe")
    while True:
        probe.write_bytes(b"")
        if os.stat(probe).st_ctime_ns > stamp:
            break
    change(shard)
    assert not is_remembered(shard, DIGEST)


def test_a_copy_that_took_times_and_memory_along_is_not_remembered(shard, tmp_path):
    noted(shard)
    copy = shutil.copytree(shard.parent, tmp_path / "copy", copy_function=shutil.copy2)
    assert (copy / ".checked" / "train-0.tfrecord.json").exists()
    assert not is_remembered(epath.Path(copy) / "train-0.tfrecord", DIGEST)
    assert is_remembered(shard, DIGEST)


def test_a_folder_that_was_renamed_is_remembered(shard):
    noted(shard)
    moved = shard.parent.rename(shard.parent.with_name("moved"))
    assert is_remembered(moved / "train-0.tfrecord", DIGEST)


def test_a_file_that_changed_just_now_has_no_facts(shard, monkeypatch):
    monkeypatch.setattr(shard_memory, "RECENT_NS", 3600 * 10**9)
    with shard.open("rb") as file:
        assert facts_of(file) is None
    assert not is_remembered(shard, DIGEST)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_a_broken_memory_is_none(shard, content):
    noted(shard)
    (shard.parent / ".checked" / "train-0.tfrecord.json").write_bytes(content)
    assert not is_remembered(shard, DIGEST)


def a_pipe(place):
    os.mkfifo(place)


def a_device(place):
    os.symlink("/dev/zero", place)


def a_folder(place):
    os.mkdir(place)


@pytest.mark.parametrize("put", [a_pipe, a_device, a_folder])
def test_no_file_in_the_place_of_a_memory_is_none_and_holds_nothing_up(shard, put):
    (shard.parent / ".checked").mkdir()
    put(shard.parent / ".checked" / "train-0.tfrecord.json")
    assert not is_remembered(shard, DIGEST)
    noted(shard)
    assert is_remembered(shard, DIGEST)


def test_the_memory_of_a_folder_that_takes_no_files_is_in_the_cache(shard, cache):
    # A file in the place of the folder: root may write anywhere.
    (shard.parent / ".checked").write_bytes(b"")
    noted(shard)
    assert is_remembered(shard, DIGEST)
    (memory,) = (cache / ".checked").iterdir()
    assert json.loads(memory.read_text())["sha256"] == DIGEST
    other = shard.parent.with_name("other") / shard.name
    other.parent.mkdir()
    other.write_bytes(b"records")
    assert not is_remembered(other, DIGEST)


def test_a_link_in_the_place_of_the_memory_is_not_followed(shard, cache, tmp_path):
    (tmp_path / "home").mkdir()
    os.symlink(tmp_path / "home", shard.parent / ".checked")
    noted(shard)
    assert list((tmp_path / "home").iterdir()) == []
    assert is_remembered(shard, DIGEST)


def test_without_a_place_for_the_memory_nothing_is_remembered(shard, cache):
    (shard.parent / ".checked").write_bytes(b"")
    cache.write_bytes(b"")
    noted(shard)
    assert not is_remembered(shard, DIGEST)
