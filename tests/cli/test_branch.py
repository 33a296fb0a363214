import pytest

from bertjax.cli.main import main


@pytest.mark.parametrize("words,message", [
    ([], "bertjax branch: nothing given, expected a run folder first"),
    (["runs/none"], "--at: found nothing, expected the step of a checkpoint"),
    (["runs/none", "--at", "5"], "bertjax branch: nothing given, expected --run-dir with the new folder"),
    (["runs/none", "--at", "5", "--run-dir", "x"], "bertjax branch: found no later phase, expected --phases, --decay-tokens"),
    (["runs/none", "--at", "5", "--run-dir", "x", "--decay-steps", "2", "--decay-tokens", "2"], "--decay-tokens: found 2, expected none beside --decay-steps"),
    (["runs/none", "--at", "5", "--run-dir", "x", "--decay-steps", "2"], "no checkpoint"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["branch", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
