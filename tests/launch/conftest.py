"""Fixtures of the launch scripts' tests: a checkout to launch from, and a stand-in for the cloud."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.stand_in import Cloud

ROOT = Path(__file__).parents[2]


def git(folder, *words):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """The launch scripts in a repository of two commits, named in the configuration of each."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "configs").mkdir()
    git(folder, "init", "-q")
    for commit in ("first", "second"):
        (folder / "configs" / "large.py").write_text(f"# {commit}\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", commit)
    return folder


@pytest.fixture
def cloud(tmp_path):
    """`cloud(**scenario)` makes the stand-in; the processes that it started end with the test."""
    made = []

    def make(**scenario):
        made.append(Cloud(tmp_path / "cloud", **({"hosts": 2} | scenario)))
        return made[-1]

    yield make
    for stand_in in made:
        stand_in.end()
