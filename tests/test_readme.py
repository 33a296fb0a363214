"""The README says what is so: its commands run, its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHORT = "--train.steps 20 --optimizer.warmup-steps 5 --train.eval-every-steps 20 --train.eval-max-batches 2"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.M | re.S)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files that git knows, in a folder of their own, with this environment for the one the
    scripts would make.
    """
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "launch" / "env.sh").write_text("bertjax_environment() { :; }\n")
    identity = "-c user.name=test -c user.email=test@example.org"
    shell(
        f"git init -q && git add -A && git {identity} commit -qm all", folder
    )  # the launch scripts send a commit
    return folder


def shell(command, folder):
    venv = os.environ.get("VIRTUAL_ENV") or str(Path(sys.executable).parents[1])
    drop = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    env = {k: v for k, v in os.environ.items() if k not in drop} | {
        "PATH": f"{venv}/bin:{os.environ['PATH']}"
    }
    return subprocess.run(
        ["bash", "-ec", command], cwd=folder, env=env, capture_output=True, text=True
    )


@pytest.mark.slow
def test_every_command_runs_in_a_fresh_clone(clone):
    """With fewer steps."""
    commands = [
        line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line
    ]
    assert commands[:2] == ["bash launch/local.sh", "bash launch/test.sh"]
    for command in commands:
        if command.startswith("bash launch/test.sh"):
            continue  # this is it
        if "launch/local.sh" in command or "bertjax train" in command:
            command += " " + SHORT
        run = shell(command, clone)
        assert run.returncode == 0, f"{command}\n{run.stderr[-2000:]}"


@pytest.mark.slow
def test_the_python_example_runs(clone):
    (source,) = blocks("python")
    run = shell(f"{sys.executable} -c '{source}'", clone)
    assert run.returncode == 0, run.stderr[-2000:]


def test_links_lead_to_files_of_the_project():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
