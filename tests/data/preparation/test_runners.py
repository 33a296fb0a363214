"""Work of a preparation that is done twice, or by workers that outlive it."""

import contextlib
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from etils import epath

from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.runners import WorkItem
from bertjax.storage import LockError, folder_lock
from tests.data.preparation.corpora import config_of, digests


@contextlib.contextmanager
def twice_in_threads():
    """A runner that runs each item in two threads at once, as far as the items let it."""
    with ThreadPoolExecutor(2) as pool:

        def run(stage, items, progress):
            for item in items:
                together = threading.Barrier(2)

                def copy(item=item, together=together):
                    together.wait()
                    item.run()

                for future in [pool.submit(copy), pool.submit(copy)]:
                    future.result()

        yield run


@contextlib.contextmanager
def twice_in_processes():
    """A runner that gives each item to two of four processes."""
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:

        def run(stage, items, progress):
            futures = [pool.submit(item.run) for item in items for _ in range(2)]
            for future in futures:
                future.result()

        yield run


def twice_config(corpus):
    pytest.importorskip("rensa")
    # Every stage: a sample, sketches, several units, pairs, two splits.
    return config_of(corpus, num_shards=4, near_duplicate_threshold=0.8, dupe_factor=1)


def test_each_task_run_twice_at_once_gives_the_same_bytes(corpus, tmp_path):
    expected = prepare(twice_config(corpus), tmp_path / "once")
    assert prepare(twice_config(corpus), tmp_path / "twice", runner=twice_in_threads()) == expected
    assert digests(tmp_path / "twice") == digests(tmp_path / "once")
    assert not list((tmp_path / "twice").rglob("*.unfinished"))


@pytest.mark.slow
def test_each_task_run_in_two_processes_at_once_gives_the_same_bytes(corpus, tmp_path):
    prepare(twice_config(corpus), tmp_path / "once")
    prepare(twice_config(corpus), tmp_path / "twice", runner=twice_in_processes())
    assert digests(tmp_path / "twice") == digests(tmp_path / "once")


def test_a_worker_that_outlives_the_preparation_writes_nothing(corpus, tmp_path):
    late = []

    @contextlib.contextmanager
    def runner():
        def run(stage, items, progress):
            late.extend(items)
            for item in items:
                item.run()

        yield run

    config, out = config_of(corpus), epath.Path(tmp_path / "out")
    prepare(config, out, runner=runner())
    before = digests(tmp_path / "out")
    # Others would find their results.
    for shard in out.glob("*.tfrecord"):
        shard.unlink()
    left = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        LockError, match="found no lock, expected the lock of the process for which"
    ):
        late[-1].run()
    with folder_lock(out, "prepare"):
        for item in late:
            with pytest.raises(LockError, match=f"found bertjax prepare .process {os.getpid()} on"):
                item.run()
    assert sorted(tmp_path.rglob("*")) == left
    assert len(before) > len(digests(tmp_path / "out"))


def test_work_without_a_lock_is_just_done(tmp_path):
    WorkItem((tmp_path / "file").write_text, ("done",)).run()
    assert (tmp_path / "file").read_text() == "done"
