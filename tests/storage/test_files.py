import os
import random
import signal
from collections import Counter

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.foreign_files import foreign_paths
from bertjax.data.records.foreign_records import ForeignRecords
from bertjax.data.records.manifest import read_manifest
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.record_format import Schema
from bertjax.data.records.summary import summarize
from bertjax.errors import UserError
from bertjax.storage import (
    UNFINISHED,
    is_local,
    local_copy,
    read_span,
    remove_unfinished,
    version_of,
    write_whole,
    written_whole,
)
from tests.data.corpus.formats.test_archives import write as write_archive
from tests.data.preparation.test_runners import twice_in_threads
from tests.data.records.test_foreign_records import foreign
from tests.factory import random_batch
from tests.interrupted_prepare import start


def files_of(folder):
    """The content of each file below, by its name; not the manifest's, which tells the sources'
    names.
    """
    import fsspec

    system, root = fsspec.core.url_to_fs(os.fspath(folder))
    found = {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}
    found.pop("manifest.json", None)
    return found


def texts(documents=40):
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    return {
        f"{name}.txt": ("\n\n".join("\n".join(" ".join(rng.choices(words, k=8)) + "." for _ in range(6))
                                    for _ in range(documents)) + "\n").encode()
        for name in "ab"
    }  # fmt: skip


def write_corpus(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in texts().items():
        write_whole(folder / name, content)
    return os.fspath(folder)


def config_of(corpus, **data):
    defaults = {
        "corpus": (corpus,), "max_seq_length": 32, "max_predictions_per_seq": 5, "validation_fraction": 0.1,
        "dupe_factor": 2, "num_shards": 2, "workers": 1,
    }  # fmt: skip
    return Config(data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(vocab_size=400))


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failure_in_the_block_leaves_what_was_there_before_and_nothing_else(
    place, failure, before
):
    if before is not None:
        write_whole(place / "file", before)

    def fail():
        with written_whole(place / "file") as file:
            file.write(b"new" * 100_000)
            raise failure

    with pytest.raises(failure):
        fail()
    assert files_of(place) == ({} if before is None else {"file": before})


def test_the_name_is_there_only_when_the_block_is_through(place):
    write_whole(place / "file", b"old")
    with written_whole(place / "file") as file:
        file.write(b"new")
        assert (place / "file").read_bytes() == b"old"
    assert files_of(place) == {"file": b"new"}


def test_two_may_write_a_file_at_once_and_each_version_is_whole(place):
    with written_whole(place / "file") as first, written_whole(place / "file") as second:
        first.write(b"first" * 1000)
        second.write(b"second" * 1000)
    assert files_of(place) == {"file": b"first" * 1000}


def test_what_kills_have_left_of_files_is_removed_in_one_folder(place):
    with written_whole(place / "file") as file:
        file.write(b"content")
        if is_local(place):
            # What it has written so far is there, as after a kill.
            (unfinished,) = place.iterdir()
            assert unfinished.name.startswith("file.")
        for path in (place / f"other{UNFINISHED}", place / "below" / "it" / f"other{UNFINISHED}"):
            if is_local(place):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, b"of an earlier version")
    remove_unfinished(place)
    remove_unfinished(place / "no folder")
    assert files_of(place) == {"file": b"content"}


def test_a_disk_that_refuses_is_a_user_error_that_names_the_file(tmp_path):
    (tmp_path / "no folder").write_text("")
    with pytest.raises(UserError, match=r"no folder/file: cannot be written \(Not a directory\)"):
        write_whole(epath.Path(tmp_path / "no folder" / "file"), b"new")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken: cannot be written"):
        write_whole(epath.Path(tmp_path / "taken"), b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no folder", "taken"]


@given(st.binary(max_size=50), st.data())
def test_a_span_is_that_part_of_the_file(tmp_path_factory, content, data):
    path = epath.Path(tmp_path_factory.mktemp("span") / "file")
    write_whole(path, content)
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content) + 5))
    assert read_span(path, begin, end) == content[begin:end]


@pytest.mark.parametrize(
    "begin,end", [(0, 10), (0, 1), (3, 7), (9, 10), (5, 20), (0, 0), (5, 5), (10, 10)]
)
def test_a_span_of_a_file_in_a_bucket_is_that_part_of_it(bucket, begin, end):
    write_whole(bucket / "file", b"0123456789")
    assert read_span(bucket / "file", begin, end) == b"0123456789"[begin:end]


def test_the_version_changes_with_the_content_and_with_nothing_else(place):
    write_whole(place / "file", b"one")
    first = version_of(place / "file")
    assert version_of(place / "file") == first
    write_whole(place / "file", b"another")
    assert version_of(place / "file") != first


def test_a_local_file_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    path = epath.Path(tmp_path / "file")
    path.write_bytes(b"content")
    assert local_copy(path, "digest") == path
    assert not (tmp_path / "cache").exists()


def test_a_file_in_a_bucket_is_copied_once_for_each_digest(bucket, tmp_path):
    write_whole(bucket / "file", b"first")
    copy = local_copy(bucket / "file", "digest1")
    assert is_local(copy)
    assert copy == epath.Path(tmp_path / "cache" / "digest1")
    write_whole(bucket / "file", b"second")
    assert local_copy(bucket / "file", "digest1").read_bytes() == b"first"
    assert local_copy(bucket / "file", "digest2").read_bytes() == b"second"
    (bucket / "file").unlink()
    assert local_copy(bucket / "file", "digest2").read_bytes() == b"second"
    with pytest.raises(FileNotFoundError):
        local_copy(bucket / "file", "digest3")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["digest1", "digest2"]


@pytest.fixture
def expected(tmp_path):
    """What a preparation on a disk here gives."""
    prepare(config_of(write_corpus(epath.Path(tmp_path / "corpus"))), tmp_path / "local")
    found = files_of(tmp_path / "local")
    assert len([name for name in found if name.endswith(".tfrecord")]) == 3
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bucket_gives_the_same_bytes_as_a_folder(bucket, expected, workers):
    prepare(config_of(write_corpus(bucket / "corpus"), workers=workers), bucket / "out")
    assert files_of(bucket / "out") == expected


@pytest.mark.slow
def test_each_task_run_twice_at_once_in_a_bucket_gives_the_same_bytes(bucket, expected):
    config = config_of(write_corpus(bucket / "corpus"))
    prepare(config, bucket / "out", runner=twice_in_threads())
    assert files_of(bucket / "out") == expected


def test_small_pieces_of_a_file_in_a_bucket_hold_the_same_documents(bucket, tmp_path):
    read = []
    for folder in (epath.Path(tmp_path / "corpus"), bucket / "corpus"):
        data = config_of(write_corpus(folder)).data
        work_units = make_work_units(find_sources(data), 1000)
        assert len(work_units) > 20
        read.append(
            [
                document
                for work_unit in work_units
                for document in read_documents(work_unit, data, Counter())
            ]
        )
    assert len(read[0]) == 80
    assert read[0] == read[1]


@pytest.mark.slow
def test_archives_and_records_of_other_scripts_are_read_from_a_bucket(bucket, tmp_path):
    for ending in (".zip", ".tar", ".tzst"):
        content = write_archive(tmp_path, ending, {"a.txt": b"One.\n\nTwo.", "b.txt": b"Three."})
        write_whole(bucket / f"a{ending}", content.read_bytes())
        config = DataConfig(corpus=(str(bucket / f"a{ending}"),))
        work_units = make_work_units(find_sources(config), 1)
        assert len(work_units) == (1 if ending == ".tzst" else 2)
        read = [d for work_unit in work_units for d in read_documents(work_unit, config, Counter())]
        assert read == [["One."], ["Two."], ["Three."]]
    batch = random_batch(np.random.default_rng(1), 5)
    for compression in ("", "GZIP"):
        foreign(tmp_path / "dev.tfrecord", batch, compression=compression)
        write_whole(bucket / "rows" / "dev.tfrecord", (tmp_path / "dev.tfrecord").read_bytes())
        paths = foreign_paths(bucket / "rows", "validation")
        records = ForeignRecords(paths, Schema(16, 4))
        assert np.array_equal(records.read(np.arange(5))["input_ids"], batch["input_ids"])
    assert "validation: 5 rows in 1 file: dev.tfrecord; " in summarize(bucket / "rows")


def test_near_duplicates_are_found_in_a_bucket_too(bucket, tmp_path):
    pytest.importorskip("rensa")
    here = config_of(write_corpus(epath.Path(tmp_path / "corpus")), near_duplicate_threshold=0.8)
    prepare(here, tmp_path / "local")
    prepare(
        config_of(write_corpus(bucket / "corpus"), near_duplicate_threshold=0.8), bucket / "out"
    )
    assert files_of(bucket / "out") == files_of(tmp_path / "local")


def test_a_finished_bucket_is_left_alone_and_a_changed_corpus_is_refused(bucket):
    config = config_of(write_corpus(bucket / "corpus"))
    manifest = prepare(config, bucket / "out")
    versions = {name: version_of(bucket / "out" / name) for name in files_of(bucket / "out")}
    assert prepare(config, bucket / "out") == manifest
    assert versions == {
        name: version_of(bucket / "out" / name) for name in files_of(bucket / "out")
    }
    write_whole(bucket / "corpus" / "a.txt", b"Something else.\nAltogether.\n")
    with pytest.raises(
        UserError, match=r"made from s3://.*a\.txt: found a source added, removed or changed since"
    ):
        prepare(config, bucket / "out")


def test_killed_and_started_again_in_a_bucket_it_gives_the_same_bytes(bucket, tmp_path):
    data = {"num_shards": 8}
    prepare(config_of(write_corpus(epath.Path(tmp_path / "corpus")), **data), tmp_path / "local")
    config = config_of(write_corpus(bucket / "corpus"), **data)
    # At the fourth shard, before it has its name.
    process = start(config, bucket / "out", "kill", ".tfrecord", 4)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = {path: version_of(path) for path in (bucket / "out").glob("*.tfrecord")}
    assert len(kept) == 3
    for path in kept:
        assert (bucket / "out" / ".work" / f"{path.name}.json").exists()
    assert read_manifest(bucket / "out") is None
    prepare(config, bucket / "out")
    assert files_of(bucket / "out") == files_of(tmp_path / "local")
    assert {path: version_of(path) for path in kept} == kept


def test_records_are_read_from_a_bucket_through_local_copies(bucket, tmp_path, expected):
    manifest = prepare(config_of(write_corpus(bucket / "corpus")), bucket / "out")
    local = read_manifest(epath.Path(tmp_path / "local"))
    for split in ("train", "validation"):
        remote, here = (
            PreparedRecords(bucket / "out", manifest, split),
            PreparedRecords(epath.Path(tmp_path / "local"), local, split),
        )
        rows = np.random.default_rng(0).permutation(len(here))
        for name, values in here.read(rows).items():
            np.testing.assert_array_equal(remote.read(rows)[name], values)
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {
        shard.sha256 for shard in manifest.shards
    }
    copies = list((tmp_path / "cache").iterdir())
    times = {p: p.stat().st_mtime_ns for p in copies}
    PreparedRecords(bucket / "out", manifest, "train").read(np.arange(3))
    assert {p: p.stat().st_mtime_ns for p in copies} == times


def test_a_shard_with_exchanged_records_in_a_bucket_is_refused_and_not_kept(bucket, tmp_path):
    manifest = prepare(config_of(write_corpus(bucket / "corpus")), bucket / "out")
    name = "train-00001-of-00002.tfrecord"
    right = (bucket / "out" / name).read_bytes()
    size = manifest.schemas["train"].record_bytes
    write_whole(bucket / "out" / name, right[size : 2 * size] + right[:size] + right[2 * size :])
    with pytest.raises(UserError, match=rf"s3://.*{name}: found other bytes than were written"):
        PreparedRecords(bucket / "out", manifest, "train")
    digests = {shard.sha256 for shard in manifest.shards if shard.name != name}
    assert {p.name for p in (tmp_path / "cache").iterdir()} <= digests
    write_whole(bucket / "out" / name, right)
    PreparedRecords(bucket / "out", manifest, "train").read(np.arange(3))


def test_a_local_copy_that_was_damaged_is_made_again(bucket, tmp_path, caplog):
    manifest = prepare(config_of(write_corpus(bucket / "corpus")), bucket / "out")
    before = PreparedRecords(bucket / "out", manifest, "train").read(np.arange(3))
    shard = manifest.split("train")[0]
    copy = tmp_path / "cache" / shard.sha256
    right = copy.read_bytes()
    copy.write_bytes(bytes(len(right)))
    after = PreparedRecords(bucket / "out", manifest, "train").read(np.arange(3))
    assert copy.read_bytes() == right
    assert "is damaged and is made again" in caplog.text
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


def test_the_summary_of_a_bucket_is_that_of_a_folder_and_finds_damage(bucket, tmp_path, expected):
    prepare(config_of(write_corpus(bucket / "corpus")), bucket / "out")
    said = summarize(bucket / "out")
    assert "checksums good" in said
    assert said.splitlines()[1:] == summarize(tmp_path / "local").splitlines()[1:]
    path = bucket / "out" / "train-00001-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    write_whole(path, bytes(content))
    with pytest.raises(
        UserError, match=r"train-00001-of-00002\.tfrecord: found other bytes than were written"
    ):
        summarize(bucket / "out")
