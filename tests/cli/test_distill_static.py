import json

import numpy as np
import pytest

import bertjax
from bertjax.cli.distill_static import is_static, run
from bertjax.errors import UserError
from tests.compression.static.teachers import save_teacher, wordpiece


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run", wordpiece())


def test_the_command_makes_a_table_and_says_what_it_is(teacher, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--static", str(teacher), "--to", str(out), "--dimensions", "4", "--pooling", "cls"]
    assert run(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        f"from: {teacher}/checkpoints/0",
        "pieces: 19, of which 7 mean nothing: zeros",
        "pooling: cls",
    ]
    assert printed[3].startswith("numbers in a vector: 4, ")
    assert printed[3].endswith(" % of the variance")
    assert printed[-1] == f"written: {out}"
    bertjax.distill_static(teacher, tmp_path / "same", dimensions=4, pooling="cls")
    texts = ["the cat", "no one"]
    np.testing.assert_array_equal(
        bertjax.embed(out, texts), bertjax.embed(tmp_path / "same", texts)
    )
    assert run(words) == 0
    assert capsys.readouterr().out == ""


def test_the_default_is_as_many_components_as_there_are(teacher, tmp_path, capsys):
    run(["--static", str(teacher), "--to", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["apply_pca"] == 11


@pytest.mark.parametrize(
    "words, message",
    [
        (["--static", "run"], "nothing given, expected --to with the new folder"),
        (["--to", "out", "--static", ""], "expected --static with a run, a checkpoint or a model"),
        (["--static", "run", "--to", "out", "--dimensions", "-2"], "dimensions: found -2"),
        (["--static", "run", "--to", "out", "--max-loss", "5%"], "--max-loss: found no --sts"),
        (["--static", "absent", "--to", "out"], "absent"),
        (["--static", "run", "--to", "out", "--teacher", "x"], "--teacher: no such option"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        run(words)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--static", "--help"], ["--static", "run", "-h"]])
def test_help_needs_no_model(words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(words)
    assert stop.value.code == 0
    assert "--sif-coefficient" in capsys.readouterr().out


def test_the_words_tell_which_of_the_two_is_meant():
    assert is_static(["--static", "run"])
    assert is_static(["--to", "out", "--static=run"])
    assert not is_static(["configs/distill.py", "--run-dir", "--statics"])
