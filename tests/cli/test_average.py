import pytest

from bertjax.cli.main import main


@pytest.mark.parametrize("words,message", [
    ([], "bertjax average: nothing given, expected a run folder first"),
    (["runs/none"], "bertjax average: nothing given, expected --to with the new folder"),
    (["runs/none", "--to", "x", "--last", "-1"], "--last: found -1, expected 1 or more"),
    (["runs/none", "--to", "x", "--last", "2", "--steps", "1", "2"], "--last: found 2, expected none beside --steps"),
    (["runs/none", "--to", "x", "--steps", "1", "2"], "no checkpoint"),
    (["runs/none", "--to", "x", "--last", "2"], "found 0 checkpoints: none, expected 2"),
    (["runs/none", "--to", "x", "--ema", "--last", "2"], "--last: found 2, expected none beside --ema"),
    (["runs/none", "--to", "x", "--ema", "--steps", "1", "2"], "--steps: found 1 2, expected one step at most, beside --ema"),
    (["runs/none", "--to", "x", "--ema"], "found no checkpoint"),
    (["runs/none", "--to", "x"], "found no checkpoint, expected two checkpoints or more"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["average", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
