"""The notebooks of `examples/`, run from their first cell to their last as they are stored."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / "tools" / "run_notebook.py"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text())["cells"]


def run(notebook, folder, *options):
    drop = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "NPROC")
    env = {k: v for k, v in os.environ.items() if k not in drop} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, RUNNER, notebook, *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_there_are_two_notebooks_with_a_text_before_each_step():
    assert [path.stem for path in NOTEBOOKS] == ["finetune", "pretrain"]
    for path in NOTEBOOKS:
        kinds = [cell["cell_type"] for cell in cells(path)]
        assert kinds[0] == "markdown"
        assert ("code", "code") not in set(pairwise(kinds)), path.name


def test_every_code_cell_is_stored_with_what_it_printed():
    for path in NOTEBOOKS:
        code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        assert all(cell["outputs"] for cell in code), path.name
        for cell in code:
            printed = "".join("".join(output["text"]) for output in cell["outputs"])
            assert str(Path.home()) not in printed, path.name


def test_the_runner_stores_what_is_printed_and_the_last_value(tmp_path):
    path = tmp_path / "small.ipynb"
    sources = ["x = 2\nprint('two')\n", "x + 1", "None"]
    code = [
        {"cell_type": "code", "source": [text], "outputs": [], "execution_count": None}
        for text in sources
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# x"]}, *code]}))
    assert run(path, tmp_path, "--write").returncode == 0
    stored = [cell["outputs"] for cell in cells(path)[1:]]
    assert [[output["text"] for output in outputs] for outputs in stored] == [
        [["two\n"]],
        [["3\n"]],
        [],
    ]


def test_the_runner_ends_with_the_cell_that_fails(tmp_path):
    path = tmp_path / "bad.ipynb"
    code = [
        {"cell_type": "code", "source": [text], "outputs": [], "execution_count": None}
        for text in ("y = 1", "y / 0", "print('not reached')")
    ]
    path.write_text(json.dumps({"cells": code}))
    ended = run(path, tmp_path)
    assert ended.returncode == 1
    assert "bad.ipynb, cell 2" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
    assert ended.stdout == ""


def check_pretrain(shown):
    """The held-out loss ends well below the unigram entropy."""
    lines = re.findall(r"step +(\d+): masked-word loss ([\d.]+), unigram entropy ([\d.]+)", shown)
    assert [int(step) for step, _, _ in lines] == [400, 800, 1200, 1600, 2000]
    losses = [float(loss) for _, loss, _ in lines]
    assert losses[-1] < losses[0] - 0.5
    assert losses[-1] < float(lines[-1][2]) - 0.5


def check_finetune(shown):
    """The model is better than the baseline that it shows, and its export predicts the same."""
    accuracy = float(re.search(r"^accuracy +([\d.]+)$", shown, re.M)[1])
    baseline = float(re.search(r"^majority-class baseline .* ([\d.]+)$", shown, re.M)[1])
    assert accuracy > baseline + 0.1
    predicted = dict(re.findall(r"^(the program|bertjax) predicts (\w+)$", shown, re.M))
    assert predicted["the program"] == predicted["bertjax"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_what_its_text_says(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    ended = run(copy, tmp_path, "--write")
    assert ended.returncode == 0, ended.stderr[-3000:]
    shown = "".join(
        "".join(output["text"]) for cell in cells(copy) for output in cell.get("outputs", ())
    )
    assert (tmp_path / "runs" / "notebook").exists()
    check = {"pretrain": check_pretrain, "finetune": check_finetune}[path.stem]
    check(shown)
