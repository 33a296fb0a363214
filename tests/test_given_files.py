"""Places and files from outside: read, or refused in one line."""

import os
import threading

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.given_files import check_is_no_pipe, place_of, read_file, read_json_value


@pytest.mark.parametrize("name,message", [
    ("a" * 256, "found a name of 256 bytes, expected at most 255"),
    ("x/" * 3000 + "x", "found a name of 6,001 bytes, expected at most 4,095"),
    ("a\0b", "found a null character"),
    ("run/\udcff", r"run/\\udcff: found a name that is no UTF-8"),
    ("file://x", "found a place that files are not read from, file"),
    ("s3://", "found no bucket, expected s3://BUCKET/..."),
    ("gs:///x", "found no bucket"),
])  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused_at_once(name, message):
    with pytest.raises(UserError) as refused:
        place_of(name)
    assert message.replace("\\\\", "\\") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_names_are_places():
    assert place_of("a b/é") == epath.Path("a b/é")
    assert place_of("a" * 255).name == "a" * 255
    assert os.fspath(place_of("\udcff", any_bytes=True)) == "\udcff"


def test_a_store_that_cannot_be_asked_says_why(monkeypatch):
    def exists(_):
        raise RuntimeError("no credentials\nanywhere")

    monkeypatch.setattr(type(epath.Path("s3://nobody")), "exists", exists)
    with pytest.raises(
        UserError, match="s3://nobody: the store cannot be reached .*no credentials"
    ):
        place_of("s3://nobody/run")


def test_a_named_pipe_is_refused_and_one_of_a_shell_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_file, read_json_value, check_is_no_pipe):
        with pytest.raises(UserError, match="pipe: found a named pipe, expected a file"):
            read(epath.Path(tmp_path / "pipe"))
    reads, writes = os.pipe()
    with os.fdopen(writes, "wb") as writer:
        threading.Thread(target=writer.write, args=(b"text",)).start()
    # As bash names the pipe of `<(command)`.
    assert read_file(epath.Path(f"/dev/fd/{reads}")) == b"text"
    os.close(reads)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "none": "No such file",
        "folder": "Is a directory",
        "loop": "Too many levels",
    }.items():
        with pytest.raises(UserError, match=f"{name}: cannot be read as a manifest .{reason}"):
            read_file(epath.Path(tmp_path / name), "a manifest")
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b"[" * 10_000 + b"]" * 10_000, b"1" * 5000):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.json: cannot be read as JSON"):
            read_json_value(epath.Path(tmp_path / "x.json"))
