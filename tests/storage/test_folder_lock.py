import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.storage import LockError, folder_lock, is_local, is_lock, write_whole
from bertjax.storage.folder_lock import NAME, release_held
from bertjax.storage.holder import Holder, Host, has_ended, parsed, this_host, this_process
from bertjax.storage.lock_files import lock_file
from tests.waiting import until

ROOT = Path(__file__).parents[2]
HERE, ELSEWHERE = Host("here", "kernel 1"), Host("elsewhere", "kernel 2")
HOLDING = """
import sys, time
from etils import epath
from bertjax.storage import folder_lock, write_whole
from bertjax.storage.holder import Host, this_host
folder, host, what = epath.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with folder_lock(folder, "train", host=Host(host, "kernel") if host else this_host()):
    print("holds", flush=True)
    sys.stdin.readline()
    if what == "write":
        write_whole(folder / "file", b"late")
"""


@contextlib.contextmanager
def holding(folder, host="", what="nothing"):
    """A process that holds the lock until it gets a line, and then does `what`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder), host, what],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "holds\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def dead_lock(folder, host=ELSEWHERE, seconds=0.0, **fields):
    """Leave the lock of a process that does not renew it, for `seconds` already; on a disk only."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub").rmdir()
    facts = os.stat(folder) if is_local(folder) else None
    place = f"{facts.st_dev} {facts.st_ino}" if facts else ""
    holder = dataclasses.replace(this_process("train", host), **{"folder": place, **fields})
    assert lock_file(folder / NAME).create(holder.to_bytes())
    if seconds:
        os.utime(folder / NAME, (time.time() - seconds,) * 2)
    return holder


def test_a_lock_is_there_within_the_block_and_nothing_after(place):
    folder = place / "new" / "run"
    with folder_lock(folder, "train") as lock:
        assert left(folder) == [NAME]
        assert json.loads((folder / NAME).read_bytes())["pid"] == os.getpid()
        lock.check()
    assert left(place) == []


def test_a_folder_with_files_stays_and_so_does_one_that_was_there(tmp_path):
    with folder_lock(epath.Path(tmp_path / "a" / "b"), "train"):
        (tmp_path / "a" / "b" / "file").touch()
    assert left(tmp_path / "a" / "b") == ["file"]
    (tmp_path / "empty").mkdir()
    with folder_lock(epath.Path(tmp_path / "empty"), "train"):
        pass
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_lock_is_released_by_any_exception(tmp_path, failure):
    with pytest.raises(failure), folder_lock(epath.Path(tmp_path), "train"):
        raise failure
    assert left(tmp_path) == []


def test_a_second_holder_is_refused_at_once_and_told_who_it_is(place):
    with folder_lock(place / "run", "train") as lock:
        refusal = (
            rf"run: found bertjax train \(process {os.getpid()} on .*, since .* UTC\) at work on it,"
            " expected no other process; wait until it ends, or end it$"
        )
        for verb in ("train", "evaluate"):
            with pytest.raises(LockError, match=refusal), folder_lock(place / "run", verb):
                raise AssertionError
        lock.check()


def test_the_lock_of_a_file_is_beside_it(place):
    path = place / "vectors.npy"
    with folder_lock(path, "embed", beside=True):
        assert [is_lock(each) for each in place.iterdir()] == [True]
        assert not path.exists()
        with pytest.raises(LockError, match="bertjax embed"), folder_lock(path, "x", beside=True):
            raise AssertionError
    assert left(place) == []


def run_at_once(count, function):
    """Call `function(number)` in as many threads, which begin together; return what they return."""
    barrier, results = threading.Barrier(count), {}

    def run(number):
        barrier.wait()
        try:
            results[number] = function(number)
        except LockError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(count)]


@pytest.mark.parametrize("dead", [False, True], ids=["free", "dead"])
def test_of_many_that_take_a_lock_at_once_one_gets_it(place, dead):
    for number in range(20 if is_local(place) else 1):
        folder = place / str(number)
        if dead:
            # Of this host, a process that is gone.
            holder = dataclasses.replace(this_process("train", HERE), pid=2**22 + 1)
            if is_local(place):
                folder.mkdir()
            assert lock_file(folder / NAME).create(holder.to_bytes())
        all_done = threading.Barrier(6)

        def take(_, folder=folder, all_done=all_done):
            with contextlib.ExitStack() as stack:
                try:
                    lock = stack.enter_context(folder_lock(folder, "train", host=HERE))
                finally:
                    all_done.wait()
                lock.check()
                return "had it"

        results = run_at_once(6, take)
        assert results.count("had it") == 1, results
        assert left(folder) == []


def test_a_killed_holder_is_seen_at_once_also_before_it_is_reaped(tmp_path, caplog):
    folder = epath.Path(tmp_path / "run")
    with holding(folder) as process:
        with pytest.raises(LockError, match=rf"process {process.pid} on"), folder_lock(folder, "x"):
            raise AssertionError
        process.kill()
        until(lambda: has_ended(parsed((folder / NAME).read_bytes())))
        with folder_lock(folder, "train"):
            pass
    expected = rf"{folder}: taken over from bertjax train (process {process.pid} on"
    assert expected in caplog.text
    assert "which has ended" in caplog.text
    assert left(folder) == []


def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    folder = epath.Path(tmp_path / "run")
    own = this_process("train", this_host())
    assert own.started > 0
    dead_lock(folder, this_host(), started=own.started - 1)
    with folder_lock(folder, "train"):
        pass


def test_a_lock_that_this_process_could_not_remove_does_not_bind_it(tmp_path, caplog):
    folder = epath.Path(tmp_path / "run")
    dead_lock(folder, this_host())
    with folder_lock(folder, "train"):
        pass
    assert "which did not release it" in caplog.text


def test_a_holder_on_another_host_is_dead_when_its_lock_has_expired(tmp_path, caplog):
    folder = epath.Path(tmp_path / "run")
    dead_lock(folder, ELSEWHERE, seconds=55, pid=1)
    refusal = (
        r"found bertjax train \(process 1 on elsewhere, .* wait until it ends, or end it; it renewed"
        r" its lock 5\d s ago, and counts as dead in \d s unless it renews it again$"
    )
    with pytest.raises(LockError, match=refusal), folder_lock(folder, "train", host=HERE):
        raise AssertionError
    assert left(folder) == [NAME]
    os.utime(folder / NAME, (time.time() - 61,) * 2)
    with folder_lock(folder, "train", host=HERE):
        assert json.loads((folder / NAME).read_bytes())["host"] == "here"
    assert "elsewhere" in caplog.text
    assert "which did not renew its lock for 6" in caplog.text


def test_a_process_number_means_nothing_on_another_kernel_of_the_same_name(tmp_path):
    folder = epath.Path(tmp_path / "run")
    dead_lock(folder, Host("here", "kernel of another container"), pid=2**22 + 1)
    with pytest.raises(LockError, match="counts as dead in"), folder_lock(folder, "x", host=HERE):
        raise AssertionError


@pytest.mark.parametrize("where,expires", [
    ("tmp_path", 0.4),
    # The times of a store are whole seconds.
    pytest.param("bucket", 1.2, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_holder_that_lives_renews_its_lock(request, where, expires):
    folder = epath.Path(request.getfixturevalue(where)) / "run"
    with folder_lock(folder, "train", host=ELSEWHERE, expires=expires):
        file = lock_file(folder / NAME)
        first = file.read().changed
        until(lambda: file.read().changed > first + expires)
        with pytest.raises(LockError), folder_lock(folder, "train", host=HERE, expires=expires):
            raise AssertionError


@pytest.mark.slow
def test_in_a_bucket_an_expired_lock_is_taken_over(bucket, caplog):
    folder = bucket / "run"
    holder = this_process("train", ELSEWHERE)
    file = lock_file(folder / NAME)
    assert file.create(holder.to_bytes())
    assert not file.create(b"another")
    with pytest.raises(LockError, match="counts as dead"), folder_lock(folder, "x", host=HERE):
        raise AssertionError
    found = file.read()
    until(lambda: file.clock() > found.changed + 1)
    with folder_lock(folder, "train", host=HERE, expires=1.0) as lock:
        lock.check()
        # The holder of before can neither renew nor take it.
        assert not file.renew(holder.to_bytes())
        assert not file.take_over(found, holder.to_bytes())
        lock.check()
    assert "elsewhere" in caplog.text
    assert left(folder) == []


@pytest.mark.slow
def test_a_store_that_refuses_conditions_has_locks_too(bucket, monkeypatch):
    import s3fs

    write = s3fs.S3FileSystem._pipe_file

    async def refuse(self, path, data, mode="overwrite", **conditions):
        if mode == "create" or conditions:
            raise OSError(5, "A header you provided implies functionality that is not implemented")
        return await write(self, path, data)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", refuse)
    # One that was made before has the method of before.
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="not implemented"):
        s3fs.S3FileSystem().pipe_file(f"{bucket.name}/file", b"", mode="create")
    folder = bucket / "run"
    with folder_lock(folder, "train", host=ELSEWHERE, expires=1.2) as lock:
        first = lock_file(folder / NAME).read().changed
        until(lambda: lock_file(folder / NAME).read().changed > first)
        with pytest.raises(LockError), folder_lock(folder, "train", host=HERE):
            raise AssertionError
        lock.check()
    assert left(folder) == []
    file = lock_file(folder / NAME)
    assert file.create(this_process("train", ELSEWHERE).to_bytes())
    found = file.read()
    until(lambda: file.clock() > found.changed + 1)
    with folder_lock(folder, "train", host=HERE, expires=1.0) as lock:
        lock.check()
    s3fs.S3FileSystem.clear_instance_cache()


def lose(folder):
    """Let another host take the lock over, as if it had not been renewed; return its content."""
    file = lock_file(folder / NAME)
    content = this_process("finetune", ELSEWHERE).to_bytes()
    assert file.take_over(file.read(), content)
    return content


def test_a_lost_lock_is_noticed_before_a_file_gets_its_name(place):
    folder = place / "run"
    with folder_lock(folder, "train") as lock:
        write_whole(folder / "file", b"first")
        content = lose(folder)
        lost = (
            r"run: found bertjax finetune \(process \d+ on elsewhere, .*\) at work on it, expected the"
            " lock of this process, which was not renewed for 60 s or was deleted; nothing more is"
            " written by it$"
        )
        with pytest.raises(LockError, match=lost):
            lock.check()
        for path in (folder / "file", folder / "below" / "file"):
            if is_local(place):
                path.parent.mkdir(exist_ok=True)
            with pytest.raises(LockError, match=lost):
                write_whole(path, b"second")
        # What is elsewhere is not concerned.
        write_whole(place / "run2", b"other")
        lock.renew()
        assert (folder / NAME).read_bytes() == content
    # Another's lock is not removed.
    assert (folder / NAME).read_bytes() == content
    assert (folder / "file").read_bytes() == b"first"
    assert not [path for path in folder.iterdir() if "unfinished" in path.name]


def test_a_deleted_lock_is_a_lost_one(tmp_path):
    folder = epath.Path(tmp_path)
    with folder_lock(folder, "train") as lock:
        (folder / NAME).unlink()
        with pytest.raises(LockError, match="found no lock, expected the lock of this process"):
            lock.check()


def test_a_process_that_was_stopped_too_long_ends_in_one_line_and_writes_nothing(tmp_path):
    folder = epath.Path(tmp_path / "run")
    with holding(folder, "elsewhere", "write") as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T")
        os.utime(folder / NAME, (time.time() - 61,) * 2)
        with folder_lock(folder, "train", host=HERE) as lock:
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate("go\n")
            lock.check()
            assert left(folder) == [NAME]
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("bertjax.storage.folder_lock.LockError: ")
    assert "found bertjax train (process" in errors.splitlines()[-1]


def test_where_hard_links_are_refused_a_lock_is_as_good(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = epath.Path(tmp_path / "run")
    with folder_lock(folder, "train", host=HERE) as lock:
        with pytest.raises(LockError), folder_lock(folder, "train", host=HERE):
            raise AssertionError
        lock.check()
        assert left(folder) == [NAME]
    dead_lock(folder, seconds=61)
    with folder_lock(folder, "train", host=HERE):
        pass
    assert left(folder) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10_000, b'{"token": 1}', b"\xff"])
def test_a_lock_that_names_nobody_goes_by_its_age(tmp_path, content):
    folder = epath.Path(tmp_path)
    (folder / NAME).write_bytes(content)
    with (
        pytest.raises(LockError, match="found a process that is not known at work on it"),
        folder_lock(folder, "train"),
    ):
        raise AssertionError
    os.utime(folder / NAME, (time.time() - 61,) * 2)
    with folder_lock(folder, "train"):
        pass


def test_a_folder_that_cannot_be_made_or_written_is_named_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for name, reason in (("file", "Not a directory"), ("file/run", "Not a directory"), ("n" * 300, "File name too long")):  # fmt: skip
        with (
            pytest.raises(UserError, match=rf"{name}: cannot be written \({reason}\)"),
            folder_lock(epath.Path(tmp_path / name), "train"),
        ):
            raise AssertionError
    assert left(tmp_path) == ["file"]


def test_what_kills_have_left_of_locks_is_removed_when_it_is_old(tmp_path):
    old, new = tmp_path / f"{NAME}.0123456789ab", tmp_path / f"{NAME}.ba9876543210"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 61,) * 2)
    with folder_lock(epath.Path(tmp_path), "train"):
        pass
    assert left(tmp_path) == [new.name]


def test_all_locks_are_released_before_a_process_ends_without_its_exit_handlers(tmp_path):
    with folder_lock(epath.Path(tmp_path / "a"), "x"), folder_lock(epath.Path(tmp_path / "b"), "x"):
        release_held()
        assert not (tmp_path / "a" / NAME).exists()
        assert not (tmp_path / "b" / NAME).exists()


def test_a_lock_that_was_taken_over_is_said_to_the_log(tmp_path, caplog):
    folder = epath.Path(tmp_path / "run")
    dead_lock(folder, seconds=100)
    with caplog.at_level(logging.WARNING, "bertjax"), folder_lock(folder, "train", host=HERE):
        pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@given(st.binary() | st.lists(st.text()).map(lambda values: json.dumps(values).encode()))
def test_content_that_names_no_holder_is_read_as_that(content):
    assert parsed(content) is None


@given(st.text(), st.text(), st.integers(0, 2**70), st.integers(0, 2**70))
def test_a_holder_is_read_as_it_was_written_and_its_life_can_be_asked(verb, host, pid, started):
    holder = Holder("t", verb, host, "s", pid, started, "now")
    assert parsed(holder.to_bytes()) == holder
    assert has_ended(holder) in (True, False)


def test_a_copy_of_a_folder_that_is_written_is_free_and_the_folder_is_not(tmp_path):
    folder, copy = tmp_path / "run", tmp_path / "copy"
    with holding(folder):
        shutil.copytree(folder, copy)
        with folder_lock(epath.Path(copy), "train") as lock:
            lock.check()
        assert left(copy) == []
        with (
            pytest.raises(LockError, match="at work on it"),
            folder_lock(epath.Path(folder), "train"),
        ):
            pass


def test_a_lock_from_before_the_clock_was_set_back_says_how_long_it_counts(tmp_path):
    dead_lock(epath.Path(tmp_path / "run"), seconds=-3600.0)
    with (
        pytest.raises(LockError, match=r"counts as dead in 36[56]\d s"),
        folder_lock(epath.Path(tmp_path / "run"), "train"),
    ):
        pass


def test_a_name_with_signs_of_patterns_is_locked_as_any_other(tmp_path):
    with folder_lock(epath.Path(tmp_path / "a**b[1].npy"), "embed", beside=True) as lock:
        lock.check()
    assert left(tmp_path) == []
