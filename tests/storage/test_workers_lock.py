import pytest
from etils import epath

from bertjax.storage import LockError, folder_lock, working_under, write_whole
from bertjax.storage.folder_lock import NAME


def test_a_worker_names_files_while_the_process_that_it_works_for_has_the_lock(place):
    folder = place / "out"
    with folder_lock(folder, "prepare") as lock:
        token = lock.token
        with working_under(folder, token):
            write_whole(folder / "first", b"1")
            (folder / NAME).unlink()
            with pytest.raises(LockError, match="found no lock, expected the lock of th"):
                write_whole(folder / "second", b"2")
    with (
        folder_lock(folder, "prepare"),
        pytest.raises(
            LockError, match="found bertjax prepare .process .* for which this one works"
        ),
        working_under(folder, token),
    ):
        raise AssertionError
    assert [path.name for path in folder.iterdir()] == ["first"]


def test_a_worker_of_a_process_that_is_gone_does_not_begin(tmp_path):
    with (
        pytest.raises(LockError, match="found no lock"),
        working_under(epath.Path(tmp_path / "none"), "token"),
    ):
        raise AssertionError
