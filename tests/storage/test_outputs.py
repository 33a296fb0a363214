import json
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.storage import LockError, folder_lock, write_whole
from bertjax.storage.folder_lock import NAME as LOCK
from bertjax.storage.output_record import RECORD, check_whole, is_whole, request_digest
from bertjax.storage.outputs import files_held, folder_written_whole
from tests.killed import Commands
from tests.storage.write_outputs import FILES, write_folder


def content_of(folder):
    """The content of each file below, by its name; not that of the record."""
    import fsspec

    system, root = fsspec.core.url_to_fs(os.fspath(folder))
    found = {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}
    found.pop(RECORD, None)
    return {name: content for name, content in found.items() if f"{LOCK}." not in name}


def names_in(folder):
    """The names in a folder; not of attempts to take a lock, which are removed when they are old."""
    return {path.name for path in folder.iterdir() if f"{LOCK}." not in path.name}


@pytest.fixture(scope="module")
def commands():
    commands = Commands("tests.storage.write_outputs:main")
    yield commands
    commands.close()


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_killed_at_any_change_of_the_disk_the_same_command_makes_it_whole(
    commands, tmp_path, there
):
    moments, partly = 1, 0
    while True:
        folder = epath.Path(tmp_path / str(moments) / "out")
        folder.parent.mkdir()
        if there:
            folder.mkdir()
        status = commands.run(["folder", folder], tmp_path, at=moments).status
        found = content_of(folder) if folder.exists() else {}
        found = {name: value for name, value in found.items() if not name.startswith(".")}
        # A reader sees all of it, or nothing, or is refused.
        if found not in ({}, FILES):
            partly += 1
            with pytest.raises(UserError, match=r"out: found an output that is not whole, expec"):
                check_whole(folder)
            assert "config.json" not in found
        again = commands.run(["folder", folder], tmp_path)
        assert (again.status, again.out) == (0, "")
        assert content_of(folder) == FILES
        assert is_whole(folder)
        assert names_in(folder.parent) == {"out"}
        assert names_in(folder) == {"a.txt", "inner", "config.json", RECORD}
        if status == 0:
            break
        assert status == -9
        moments += 1
    assert moments > 20
    # What is renamed as a whole is never there in part.
    assert (partly > 0) == there


def test_files_killed_at_any_change_are_made_by_the_same_command_and_nothing_is_left(
    commands, tmp_path
):
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        folder.mkdir()
        status = commands.run(["files", folder / "first"], tmp_path, at=moment).status
        assert commands.run(["files", folder / "first"]).status == 0
        left = {name: (folder / name).read_text() for name in names_in(folder)}
        assert left == {"first": "first", "second": "second"}
        if status == 0:
            break
    assert moment > 8


def test_an_interrupted_upload_is_refused_to_readers_and_made_again(bucket, monkeypatch):
    from bertjax.storage import outputs

    folder = bucket / "runs" / "out"
    original, remove = outputs.written_whole, outputs._remove_unfinished
    for count in range(1, len(FILES) + 1):
        written = []

        def interrupted(path, written=written, count=count):
            written.append(path)
            if len(written) == count:
                # Like SIGKILL: nothing after it is done.
                monkeypatch.setattr(outputs, "_remove_unfinished", lambda folder: None)
                raise KeyboardInterrupt
            return original(path)

        monkeypatch.setattr(outputs, "written_whole", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder)
        monkeypatch.setattr(outputs, "written_whole", original)
        monkeypatch.setattr(outputs, "_remove_unfinished", remove)
        with pytest.raises(UserError, match="found an output that is not whole"):
            check_whole(folder)
    assert write_folder(folder)
    assert content_of(folder) == FILES
    assert is_whole(folder)
    assert not write_folder(folder)


def test_a_whole_output_is_found_by_the_same_request_and_refused_to_another(tmp_path):
    folder = epath.Path(tmp_path / "out")
    assert write_folder(folder)
    assert not write_folder(folder)
    with (
        pytest.raises(UserError, match=r"out: found files there, expected a folder that is new or"),
        folder_written_whole(folder, "test", request_digest("other")),
    ):
        pass
    # What was changed or removed since is not whole.
    for name, content in (("a.txt", b"longer"), ("inner/b.txt", None)):
        before = content_of(folder)[name]
        (folder / name).unlink() if content is None else write_whole(folder / name, content)
        with pytest.raises(UserError, match="found files there"):
            write_folder(folder)
        write_whole(folder / name, before)
    # What was added is no matter.
    write_whole(folder / "inner" / "notes.txt", b"mine")
    assert not write_folder(folder)


def test_an_output_that_was_altered_is_not_taken_for_made(tmp_path):
    """Also one with as many bytes as before."""
    folder = epath.Path(tmp_path / "out")
    with folder_written_whole(folder, "export", "request") as part:
        (part / "weights").write_bytes(b"good")
    (folder / "weights").write_bytes(b"evil")
    with (
        pytest.raises(UserError, match="out: found files there"),
        folder_written_whole(folder, "export", "request"),
    ):
        pass
    assert (folder / "weights").read_bytes() == b"evil"


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match="found files there, expected a folder that is new or empty"
    ):
        write_folder(epath.Path(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["../mine", "/etc/x", "a/../../mine", "..", ""])
def test_a_record_from_elsewhere_makes_nothing_outside_of_its_folder_be_removed(tmp_path, name):
    (tmp_path / "mine").write_text("mine")
    folder = epath.Path(tmp_path / "out")
    folder.mkdir()
    record = {"request": "", "whole": False, "files": {name: 1}}
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"\.bertjax\.json: found other fields or names"):
        write_folder(folder)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_block_that_fails_leaves_nothing(tmp_path, there):
    folder = epath.Path(tmp_path / "a" / "out")
    if there:
        folder.mkdir(parents=True)

    def fail():
        with folder_written_whole(folder, "test") as part:
            write_whole(part / "file", b"")
            raise UserError(f"{part}/file: is bad")

    # The part's name means nothing to the reader of the message.
    with pytest.raises(UserError, match=f"^{folder}/file: is bad$"):
        fail()
    left = [path.name for path in folder.iterdir()] if there else list(tmp_path.iterdir())
    assert left == []


def test_the_second_of_two_is_refused_at_once_and_the_first_ends_well(tmp_path):
    folder, entered, go_on = epath.Path(tmp_path / "out"), Event(), Event()

    def first():
        with folder_written_whole(folder, "export") as part:
            entered.set()
            go_on.wait()
            write_whole(part / "file", b"first")

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(first)
        entered.wait()
        try:
            with pytest.raises(
                LockError, match=rf"out: found bertjax export \(process {os.getpid()}"
            ):
                write_folder(folder)
            with (
                files_held("embed", epath.Path(tmp_path / "file")),
                pytest.raises(LockError, match="file: found bertjax embed"),
                files_held("embed", epath.Path(tmp_path / "file")),
            ):
                pass
        finally:
            go_on.set()
        done.result()
    assert content_of(folder) == {"file": b"first"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_who_has_lost_its_lock_gives_no_name_to_its_output(tmp_path):
    folder = epath.Path(tmp_path / "out")

    def lose():
        with folder_written_whole(folder, "export") as part:
            write_whole(part / "file", b"late")
            for path in tmp_path.glob(".*lock*"):
                path.unlink()

    with pytest.raises(LockError, match="expected the lock of this process"):
        lose()
    assert not folder.exists()
    with folder_lock(folder, "export", beside=True):
        pass
