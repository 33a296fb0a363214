"""The script of attacks (`benchmarks/attack.py`): its ledger, its verdicts, and one run of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def attack(*words):
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "attack.py", *map(str, words)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_ledger_goes_on_after_its_last_whole_line(tmp_path):
    from attacks.ledger import Ledger
    from attacks.result import ENDED_WELL, Attack, Result

    path = tmp_path / "ledger.jsonl"
    planned = [Attack("kill", "train", number) for number in range(3)]
    Ledger(path).add(planned[0], Result(ENDED_WELL, "then status 0"))
    with path.open("a") as file:
        file.write('{"kind": "kill", "verb": "tr')  # killed while it wrote
    ledger = Ledger(path)
    assert ledger.left(planned) == planned[1:]
    ledger.add(planned[1], Result(ENDED_WELL, "then status 0"))
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]
    assert Ledger(path).left(planned) == planned[2:]


def test_two_ledgers_are_printed_side_by_side(tmp_path, capsys):
    from attacks.ledger import Ledger, print_table
    from attacks.result import ENDED_WELL, TRACEBACK, WRONG_NUMBER, Attack, Result

    verdicts = {"before": [WRONG_NUMBER, TRACEBACK], "after": [ENDED_WELL, ENDED_WELL]}
    ledgers = [Ledger(tmp_path / name) for name in verdicts]
    for ledger, found in zip(ledgers, verdicts.values(), strict=True):
        for number, verdict in enumerate(found):
            ledger.add(Attack("pair", "prepare", number), Result(verdict, ""))
    print_table([ledger.entries for ledger in ledgers])
    assert capsys.readouterr().out.splitlines() == [
        "| attack | tried | ended well | traceback | wrong number |",
        "| --- | --- | --- | --- | --- |",
        "| pair | 2 > 2 | 0 > 2 | 1 > 0 | 1 > 0 |",
    ]
    print_table([ledgers[0].entries], by_verb=True)
    assert "| pair: prepare | 2 | 1 | 1 |" in capsys.readouterr().out


def test_one_line_is_one_line():
    from attacks.processes import is_one_line

    assert is_one_line("INFO step 1\nbertjax: x: found 1, expected 2\n")
    assert not is_one_line("bertjax: x: found 1, expected 2\nand more\n")
    assert not is_one_line("bertjax: x\nbertjax: y\n")
    assert not is_one_line("")


def test_values_of_a_folder_leave_out_speeds_and_logs(tmp_path):
    from attacks.values import differences, left_over, values_of

    folders = [tmp_path / name / "out" for name in ("one", "two")]
    for folder, speed in zip(folders, (1.0, 2.0), strict=True):
        (folder / "tensorboard").mkdir(parents=True)
        (folder / "tensorboard" / f"events.{speed}").write_text("")
        (folder / "log.txt").write_text(f"{speed}")
        entry = {"step": 1, "loss": 0.5, "steps_per_second": speed}
        (folder / "metrics.jsonl").write_text(json.dumps(entry) + "\n")
    one, two = map(values_of, folders)
    assert one == two
    assert not left_over(tmp_path / "two", folders[1], folders[0])
    (folders[1] / "metrics.jsonl").write_text('{"step": 1, "loss": 0.25}\n')
    (folders[1] / "x.unfinished").write_text("")
    assert differences(values_of(folders[1]), one) == ["metrics.jsonl"]
    assert left_over(tmp_path / "two", folders[1], folders[0]) == ["out/x.unfinished"]


def test_a_killed_process_and_a_refused_one_are_told_apart(tmp_path):
    from attacks.processes import Process, run
    from attacks.result import ONE_LINE, TRACEBACK

    assert run(["inspekt"], tmp_path).verdict() == ONE_LINE
    process = Process(["inspekt"], tmp_path)
    process.kill(group=True)
    killed = process.end()
    assert killed.status == -9
    assert killed.verdict() == TRACEBACK


def test_a_verb_in_this_process_gives_its_line_its_text_or_its_exception(tmp_path):
    from attacks.in_process import answer_of, run
    from attacks.result import ENDED_WELL, ONE_LINE, TRACEBACK

    def crash():
        raise KeyError("x")

    refused = answer_of(lambda: run(["inspect", "missing"]), tmp_path)
    assert (refused.verdict, "missing" in refused.said) == (ONE_LINE, True)
    printed = answer_of(lambda: run(["--version"]), tmp_path)
    assert printed.verdict == ENDED_WELL
    assert printed.values.startswith("bertjax ")
    assert answer_of(crash, tmp_path).verdict == TRACEBACK


def test_damage_to_a_field_leaves_json_and_says_what_it_did(tmp_path):
    import random

    from attacks import damage

    path = tmp_path / "x.json"
    path.write_text('{"a": {"b": [1, 2]}, "c": "d"}')
    told = {damage.field(random.Random(number), path) for number in range(5)}
    assert len(told) > 1
    assert all(line.startswith("line 0, ") for line in told if "is" not in line)
    json.loads(path.read_text())


@pytest.mark.slow
def test_the_script_goes_on_where_it_stopped(tmp_path):
    words = ["--work", tmp_path / "work", "--ledger", tmp_path / "ledger.jsonl", "--kinds"]
    first = attack(*words, "flip", "--flips", 3)
    assert "| flip | 3 |" in first
    again = attack(*words, "flip", "damaged file", "--flips", 4, "--damages", 2)
    # Three of the four were tried.
    assert len([line for line in again.splitlines() if line.startswith("flip ")]) == 1
    assert "| damaged file | 2 |" in again
    killed = attack(*words, "kill", "--kills", 1)
    assert "kill prepare 0: " in killed
