"""Every launch script is read by shellcheck."""

import os
import shutil
import subprocess

import pytest

from tests.launch.conftest import ROOT

SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]


def test_all_are_there():
    assert {"gpu.sh", "local.sh", "test.sh", "tpu.sh", "tpu_worker.sh", "run"} <= {
        script.name for script in SCRIPTS
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_syntax_and_shellcheck(script):
    subprocess.run(["bash", "-n", script], check=True)
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; syntax was checked")
    # Those that are sourced are read with what sources them, too: -x follows.
    run = subprocess.run(
        ["shellcheck", "-x", script.relative_to(ROOT)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", ["tpu.sh", "gpu.sh", "tpu_worker.sh"])
def test_what_is_called_directly_is_executable(name):
    assert os.access(ROOT / "launch" / name, os.X_OK)


def test_no_command_is_of_an_alpha_release():
    for script in SCRIPTS:
        assert "gcloud alpha" not in script.read_text()
