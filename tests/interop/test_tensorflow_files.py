import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.interop import tensorflow_files
from bertjax.interop.tensorflow_files import tensorflow_output

tf = pytest.importorskip("tensorflow")


def test_files_and_folders_are_moved_the_one_that_counts_last(tmp_path, monkeypatch):
    written = []
    original = tensorflow_files._move
    monkeypatch.setattr(
        tensorflow_files,
        "_move",
        lambda file, target: written.append(target.name) or original(file, target),
    )
    with tensorflow_output(epath.Path(tmp_path / "out"), last="a.pb") as local:
        (local / "variables").mkdir()
        for name in ("a.pb", "b.txt", "variables/c.index"):
            (local / name).write_text(name)
        assert not (tmp_path / "out").exists()
    assert sorted(written) == ["a.pb", "b.txt", "c.index"]
    assert written[-1] == "a.pb"
    for name in ("a.pb", "b.txt", "variables/c.index"):
        assert (tmp_path / "out" / name).read_text() == name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def write_half(folder):
    with tensorflow_output(epath.Path(folder), last="a.pb") as local:
        (local / "a.pb").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "no\n space")


def test_an_error_of_tensorflow_names_the_folder_and_nothing_is_moved(tmp_path):
    with pytest.raises(UserError, match=r"out: cannot be written \(no space\)"):
        write_half(tmp_path / "out")
    assert not list(tmp_path.iterdir())
