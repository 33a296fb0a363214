"""The README and the documents against the project: commands, programs, paths and names in them."""

import dataclasses
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bertjax.config import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = "--train.steps 20 --optimizer.warmup-steps 5 --train.save-every-steps 10 --train.eval-every-steps 20 --train.eval-max-batches 2"
# Folders that documents name and a run makes: of prepared folders, runs, exports, and at home.
MADE = {
    ".work/",
    "cells/",
    "checkpoints/",
    "compiled/",
    "prepared/",
    "runs/",
    "tensorboard/",
    "tokenizer/",
}


def blocks():
    """(language, content) of the fenced blocks of the README, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)


def commands(content):
    """The commands of a block: its lines, those joined that end in a backslash."""
    return [line for line in content.replace("\\\n", " ").splitlines() if line]


def transcripts():
    """(command, expected output) of the indented blocks that begin with a prompt."""
    return re.findall(r"^    \$ (.*)\n((?:    .*\n)+)", README, re.M)


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


def run_command(command, folder):
    if command == "bash launch/test.sh":
        return  # this is it
    if command.startswith("pip install"):
        # Into a folder of its own: the environment of the tests stays as it is.
        command += " --no-deps --no-build-isolation --upgrade --target build/installed"
    if "launch/local.sh" in command or "bertjax train" in command:
        command += " " + SHORT
    if "bertjax branch" in command:
        command = command.replace("--at 3000", "--at 20")  # the last step of a run so short
    run = shell(command, folder)
    assert run.returncode == 0, f"{command}\n{run.stderr[-2000:]}"
    assert "does not provide the extra" not in run.stderr, f"{command}\n{run.stderr}"


@pytest.mark.slow
def test_every_command_and_program_runs_in_a_fresh_clone(clone):
    """In the order of the README, with fewer steps."""
    assert {language for language, _ in blocks()} == {"bash", "python"}
    for number, (language, content) in enumerate(blocks()):
        if language == "python":
            (clone / f"block_{number}.py").write_text(content)
            run_command(f"{sys.executable} block_{number}.py", clone)
            continue
        for command in commands(content):
            run_command(command, clone)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "expected"), transcripts())
def test_every_transcript_is_what_the_command_says(clone, command, expected):
    run = shell(f"{command} 2>&1", clone)
    assert run.stdout.split() == expected.split()
    assert run.returncode == 2


def test_sixty_seconds_are_the_two_commands_of_the_project():
    section = README.partition("## Sixty seconds")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
    assert commands(block) == ["bash launch/local.sh", "bash launch/test.sh"]


def test_every_verb_is_in_the_table_and_in_a_command():
    from bertjax.cli.main import VERBS

    table = re.findall(r"^\| `([a-z-]+)` \|", README, re.M)
    assert sorted(table) == sorted(VERBS)
    bash = "\n".join(block for language, block in blocks() if language == "bash")
    assert [verb for verb in VERBS if f"bertjax {verb} " not in bash] == []


def test_the_readme_is_short_and_its_sections_are_in_order():
    assert len(README.split()) < 1200
    assert re.findall(r"^## (.*)$", README, re.M) == [
        "Install",
        "Sixty seconds",
        "From Python",
        "A TPU slice",
        "Verbs",
        "Results",
        "More",
        "Citing and licence",
    ]


def test_links_lead_to_files_and_headings_of_the_project():
    for path in DOCUMENTS:
        for link, _, heading in re.findall(
            r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", path.read_text()
        ):
            target = path.parent / link if link else path
            assert target.exists(), f"{path.name}: {link}"
            if heading:
                assert heading in headings(target), f"{path.name}: {link}#{heading}"


def headings(path):
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_path_in_the_documents_exists():
    sources = [*(ROOT / "bertjax").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    sources += (ROOT / "launch").glob("*")
    known = {path.name for path in sources} | {f"{path.parent.name}/" for path in sources}
    for path in DOCUMENTS:
        for name in re.findall(r"`([\w./-]+(?:\.py|\.sh|\.md|\.yaml|/))`", path.read_text()):
            if re.search("ROOM|FILE|NAME", name):
                continue
            here = name in known or any((root / name).exists() for root in (ROOT, ROOT / "bertjax"))
            assert here or name in MADE, f"{path.name}: {name}"


def test_the_table_of_floors_is_the_one_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [c["layers"] for c in contracts["contracts"] if c["type"] == "layers"]
    checked = {}
    for floor, rooms in enumerate(reversed(layers), 1):
        for room in rooms.split(" | "):
            checked[room.removeprefix("bertjax.")] = floor
    described = {}
    table = (ROOT / "docs" / "architecture.md").read_text()
    for floor, rooms in re.findall(r"^\| (\d+) \| (.*?) \|", table, re.M):
        for room in re.findall(r"`(\w+)(?:/|\.py)`", rooms):
            described[room] = int(floor)
    assert described == checked


def test_the_names_that_contributing_gives_are_in_the_files_beside_them():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    lines = re.findall(r"^\| `([\w./]+(?:\.py|\.md|/))` \| (.*) \|$", text, re.M)
    assert len(lines) > 20
    for name, change in lines:
        if "NAME" in name:
            continue
        path = next(root / name for root in (ROOT, ROOT / "bertjax") if (root / name).exists())
        files = path.rglob("*.py") if path.is_dir() else [path]
        content = "\n".join(file.read_text() for file in files)
        for mentioned in re.findall(r"`(?:\w+\.)*(\w+)`", change):
            if (path / f"{mentioned}.py").exists():
                continue
            assert re.search(rf"\b{mentioned}\b", content), f"{name}: {mentioned}"


FILE_SUFFIXES = {"html", "json", "jsonl", "md", "py", "toml", "txt"}


def dotted_names(text):
    """The names with a dot in code spans, alone or before a value; names of files left out."""
    names = re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)(?: [^`\n]*)?`", text)
    return [name for name in names if name.rpartition(".")[2] not in FILE_SUFFIXES]


def exists(name):
    """Whether a dotted name is a field of a configuration, or `FILE.NAME` or `CLASS.NAME` of the
    package, or a module that can be imported.
    """
    first, *rest = name.split(".")
    if is_field(Config, name.split(".")):
        return True
    for path in (ROOT / "bertjax").rglob("*.py"):
        if path.stem == first and has(module_of(path), rest):
            return True
        is_class = re.search(rf"^class {first}\b", path.read_text(), re.M)
        if is_class and has_member(getattr(module_of(path), first), rest):
            return True
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def module_of(path):
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def has(value, names):
    for name in names:
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


def has_member(cls, names):
    """Whether a class has an attribute of this name, or a field without a default."""
    annotated = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    return (len(names) == 1 and names[0] in annotated) or has(cls, names)


def is_field(section, names):
    fields = {field.name: field for field in dataclasses.fields(section)}
    if names[0] not in fields:
        return False
    if len(names) == 1:
        return True
    inner = fields[names[0]].default_factory
    return dataclasses.is_dataclass(inner) and is_field(inner, names[1:])


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_names_with_a_dot_exist(document):
    names = dotted_names((ROOT / document).read_text())
    assert names
    assert [name for name in names if not exists(name)] == []


def test_the_search_for_names_with_a_dot_finds_the_wrong_ones():
    text = "`hosts.process_rows` `model.kernels pallas` `config.json` `Kind.metrics`\n`errors.py`"
    assert dotted_names(text) == ["hosts.process_rows", "model.kernels", "Kind.metrics"]
    for name in ("hosts.process_row_indices", "model.kernels", "Kind.metrics", "jax.numpy"):
        assert exists(name), name
    for name in ("hosts.process_rows", "model.kernel", "Kind.metric", "jax.number", "no.such"):
        assert not exists(name), name
