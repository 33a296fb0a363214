import threading

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.parallel import job_lock
from bertjax.storage import LockError, folder_lock
from bertjax.storage.folder_lock import NAME


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "run"


def test_a_job_of_one_process_holds_the_lock_itself_and_is_refused_at_once(folder):
    with job_lock.job_lock(folder, "train"):
        assert (folder / NAME).exists()
        with pytest.raises(LockError, match="bertjax train"), job_lock.job_lock(folder, "train"):
            raise AssertionError
    assert not folder.exists()


def test_a_launch_script_may_let_it_wait_for_the_lock_of_a_run_that_was_killed(folder, monkeypatch):
    monkeypatch.setenv("BERTJAX_LOCK_SECONDS", "600")
    monkeypatch.setattr(job_lock, "RETRY_SECONDS", 0.01)
    held, wanted = threading.Event(), threading.Event()

    def hold():
        with folder_lock(folder, "train"):
            held.set()
            wanted.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    release = threading.Timer(0.1, wanted.set)
    release.start()
    with job_lock.job_lock(folder, "train"):
        assert wanted.is_set()
    thread.join()


def test_a_time_to_wait_that_is_no_number_is_refused(folder, monkeypatch):
    monkeypatch.setenv("BERTJAX_LOCK_SECONDS", "a minute")
    refusal = "BERTJAX_LOCK_SECONDS: found a minute, expected a whole number from 0"
    with pytest.raises(UserError, match=refusal), job_lock.job_lock(folder, "train"):
        raise AssertionError
