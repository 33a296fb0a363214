"""launch/env.sh, with a virtual environment whose `python` writes down what it is asked."""

import os
import shutil
import subprocess

from tests.launch.conftest import ROOT


def test_packages_beside_the_requirements_are_installed_once(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(f"PATH={binaries}:$PATH\n")
    (binaries / "python").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n')
    (binaries / "python").chmod(0o755)

    def make(words):
        (tmp_path / "asked").write_text("")
        line = f". launch/env.sh && bertjax_environment requirements.txt {words}"
        environment = os.environ | {"BERTJAX_VENV": str(tmp_path / "venv")}
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=environment, check=True
        )
        pip = "-m pip install --quiet --disable-pip-version-check "
        return [line.removeprefix(pip) for line in (tmp_path / "asked").read_text().splitlines()]

    itself = f"--no-deps -e {tmp_path}"
    assert make("") == [f"-r {tmp_path}/requirements.txt", itself]
    assert make("'jax[cuda13]'") == [f"-r {tmp_path}/requirements.txt jax[cuda13]", itself]
    assert make("'jax[cuda13]'") == []
    assert make("'jax[cuda12]'") == [f"-r {tmp_path}/requirements.txt jax[cuda12]", itself]
