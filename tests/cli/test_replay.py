import contextlib
import json

import pytest

import bertjax
from bertjax.cli.main import main
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = write_library(tmp_path_factory.mktemp("replay"))
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py").replace(train={"keep_steps": (0, 1)})
        bertjax.prepare(config)
        bertjax.train(config, "runs/tiny")
        yield folder


@pytest.mark.parametrize("words,message", [
    ([], "bertjax replay: nothing given, expected a run folder first"),
    (["runs/none"], "bertjax replay: found no --step, expected one of --step and --find"),
    (["runs/none", "--step", "2", "--find", "x"], "found --step and --find, expected one of"),
    (["runs/none", "--step", "2", "--rows", "-1"], "--rows: found -1, expected 0 or more"),
    (["runs/none", "--step", "2", "--seed", "3"], "--seed: no such option of `bertjax replay RUN`"),
    (["runs/none", "--step", "2"], "runs/none/config.json"),
    (["runs/none", "--step", "x"], "--step"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_step_is_printed_for_readers(library, capsys):
    assert main(["replay", "runs/tiny", "--step", "2", "--rows", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1 to 2, phase 1 of 1: 8 rows, learning rate ")
    assert lines[0].endswith("mask rate 0.15")
    assert lines[1].removeprefix("logged: ") == lines[2].removeprefix("computed: ")
    assert lines[3] == "equal to the log: yes"
    assert [line.split()[1] for line in lines if line.startswith("row ")] == ["0:", "1:", "2:"]
    assert lines[-1] == "5 more rows (--rows 0 prints all)"
    assert any(line.endswith(": masked") for line in lines)


@pytest.mark.slow
def test_a_step_is_printed_for_programs(library, capsys):
    assert main(["replay", "runs/tiny", "--step", "2", "--rows", "0", "--json", "True"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["equals_log"] is True
    assert values["batch_size"] == len(values["rows"]) == 8
    for row in values["rows"]:
        assert len(row["input_ids"]) == 32
        for each in row["predictions"]:
            assert row["pieces"][each["position"]] == each["shown"]


@pytest.mark.slow
def test_the_steps_of_a_sentence_are_printed(library, capsys):
    assert main(["replay", "runs/tiny", "--find", "the cat", "--rows", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pieces: the cat"
    assert lines[2].startswith("phase 1, all: ")
    assert "what was cut at their ends is not found" in lines[2]
    assert main(["replay", "runs/tiny", "--find", "the cat", "--rows", "1", "--json", "True"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["count"] == len(lines) - 3
    assert len(values["seen"]) == 1
    assert values["steps"] == sorted({int(line.split()[1][:-1]) for line in lines[3:]})
