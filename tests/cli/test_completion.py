"""Completion scripts: bash accepts its own, and completes verbs, presets and options."""

import shutil
import subprocess

import pytest

from bertjax.cli.completion import SHELLS, completion_script, run
from bertjax.cli.main import VERBS
from bertjax.config import preset_names
from bertjax.errors import UserError

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_bertjax
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "bertjax.bash"
    path.write_text(completion_script("bash"))
    return path


def completed(script, *words):
    """The candidates for the last of the words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    command = [bash, "--norc", "-c", COMPLETE, "bash", script, "bertjax", *words]
    result = subprocess.run(command, capture_output=True, text=True, cwd=script.parent)
    assert (result.returncode, result.stderr) == (0, "")
    return set(result.stdout.split("\n")) - {""}


def test_bash_accepts_the_script(script):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    result = subprocess.run([bash, "-n", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_verbs_are_completed(script):
    assert completed(script, "fine") == {"finetune"}
    assert set(VERBS) <= completed(script, "")


def test_presets_and_files_are_completed_after_the_verbs_that_take_them(script):
    assert completed(script, "train", "ti") == {"tiny"}
    assert completed(script, "train", "") == {*preset_names(), script.name}
    assert completed(script, "completion", "") == set(SHELLS)
    assert completed(script, "prepare", "bertjax.b") == {script.name}


def test_options_and_their_choices_are_completed(script):
    assert completed(script, "train", "tiny", "--train.ste") == {"--train.steps"}
    assert completed(script, "train", "--train.ste") == {"--train.steps"}
    assert completed(script, "compile", "tiny", "--optimizer.schedule", "lin") == {"linear"}
    assert completed(script, "embed", "--pool") == {"--pooling"}
    # Of both forms of the verb.
    assert completed(script, "distill", "--sif") == {"--sif-coefficient"}
    assert completed(script, "distill", "--teach") == {"--teacher"}
    options = completed(script, "train", "tiny", "--")
    assert all(option.startswith("-") for option in options)
    assert "--data.masking" in options


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_names_verbs_presets_and_options(shell, capsys):
    assert run([shell]) == 0
    script = capsys.readouterr().out
    for word in (*VERBS, *preset_names(), "--train.steps"):
        assert word in script


@pytest.mark.parametrize("words,message", [
    ([], "bertjax completion: nothing given, expected one of bash, zsh, fish first"),
    (["fsh"], "bertjax completion: found fsh, expected one of bash, zsh, fish"),
])  # fmt: skip
def test_another_shell_is_a_mistake(words, message):
    with pytest.raises(UserError, match=message):
        run(words)
