"""Rules of the house that a tool can hold."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_floors_hold_without_a_circle():
    # Of this environment, activated or not.
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_no_file_is_over_500_lines():
    long = {
        p: n for p in ROOT.rglob("bertjax/**/*.py") if (n := len(p.read_text().splitlines())) > 500
    }
    assert not long


def test_no_folder_but_the_verbs_holds_more_than_15_files():
    folders = {path.parent for path in ROOT.rglob("bertjax/**/*.py")} - {ROOT / "bertjax" / "cli"}
    counts = {folder: len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > 15}


def test_tests_mirror_the_package():
    for path in (ROOT / "tests").glob("*/**/test_*.py"):
        room, name = str(path.parent.relative_to(ROOT / "tests")), path.name.removeprefix("test_")
        if room in ("launch", "multihost"):
            continue
        across = (room, name) in {
            ("cli", "verbs.py"),
            ("data/tokenizers", "parity.py"),
            ("model", "parity.py"),
            ("training", "parity.py"),
            ("tasks/classification", "sts.py"),
        }
        assert (ROOT / "bertjax" / room / name).exists() or across, path
