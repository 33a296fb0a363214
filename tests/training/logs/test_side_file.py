import logging
import os
import subprocess
import threading
import time

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.training.logs import side_file
from bertjax.training.logs.side_file import AppendedFile, SideFile, to_lines


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path) / "lines.txt"


@pytest.fixture
def said(caplog):
    """Return what was logged, as (level, text) pairs."""
    caplog.set_level(logging.INFO, logger="bertjax")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    yield epath.Path(disk)
    subprocess.run(["umount", str(disk)], check=True)


def test_a_failure_and_its_end_are_said_once(path, said):
    file = SideFile(path)

    def refuse():
        raise PermissionError(13, "Permission denied")

    assert [file.attempt(refuse), file.attempt(refuse), file.attempt(list)] == [False, False, True]
    assert said() == [
        ("WARNING", f"{path}: cannot be written (Permission denied); training goes on"),
        ("INFO", f"{path}: can be written again"),
    ]


@pytest.mark.parametrize(
    "error,words",
    [
        (ValueError("no column\nof that name"), "ValueError: no column of that name"),
        (UserError("config.json: found nothing"), "config.json: found nothing"),
    ],
)
def test_an_error_of_any_type_is_said_on_one_line(path, said, error, words):
    file = SideFile(path)
    with file.errors_said():
        raise error
    assert said() == [("WARNING", f"{path}: cannot be written ({words}); training goes on")]


def test_a_write_that_never_ends_is_waited_for_once(path, said, monkeypatch):
    monkeypatch.setattr(side_file, "WAIT_SECONDS", 0.2)
    file, end = SideFile(path), threading.Event()
    begun = time.monotonic()
    assert not file.attempt(end.wait)
    for _ in range(1000):
        assert not file.attempt(end.wait)
    assert time.monotonic() - begun < 2
    assert [level for level, _ in said()] == ["WARNING"]
    assert "not within" in said()[0][1]
    end.set()
    file._thread.join()
    assert file.attempt(list)


def test_a_pipe_that_nobody_reads_stops_nothing(path, said, monkeypatch):
    monkeypatch.setattr(side_file, "WAIT_SECONDS", 0.2)
    os.mkfifo(path)
    file = AppendedFile(path)
    assert not file.append(to_lines(["first"]))
    begun = time.monotonic()
    for _ in range(1000):
        file.append(to_lines(["more"]))
    assert time.monotonic() - begun < 2
    assert [level for level, _ in said()] == ["WARNING"]
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # the open of the writer ends
    file._thread.join(timeout=60)
    os.close(reader)
    path.unlink()
    assert file.append([])
    assert path.read_text().split() == ["first", *["more"] * 1000]


def test_lines_wait_for_a_full_disk_and_none_is_cut_or_written_twice(small_disk, said):
    file = AppendedFile(small_disk / "lines.txt", synced=True)
    lines = [f"{number:03} {'x' * 500}" for number in range(300)]
    assert file.append(to_lines(lines[:50]))
    for line in lines[50:250]:
        file.append(to_lines([line]))
    # A part of a line may be there: the next write cuts it off.
    assert file.failed
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert file.append(to_lines(lines[250:]))
    assert (small_disk / "lines.txt").read_text().splitlines() == lines
    assert [level for level, _ in said()] == ["WARNING", "INFO"]
    assert "No space left on device" in said()[0][1]


def test_only_so_many_lines_wait(path, monkeypatch):
    monkeypatch.setattr(side_file, "MAX_PARTS", 10)
    path.mkdir()
    file = AppendedFile(path)
    for number in range(100):
        file.append(to_lines([str(number)]))
    path.rmdir()
    file.append([])
    assert path.read_text().split() == [str(number) for number in range(90, 100)]


def test_a_file_that_was_made_shorter_meanwhile_gets_no_zeros(small_disk):
    path = small_disk / "lines.txt"
    file = AppendedFile(path)
    file.append(to_lines(["x" * 40_000]))
    assert not file.append(to_lines(["y" * 40_000]))
    os.truncate(path, 0)
    assert file.append(to_lines(["z"]))
    assert path.read_text() == "y" * 40_000 + "\nz\n"
