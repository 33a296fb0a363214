"""The wheel: what is in it, and what it does in an environment without TensorFlow."""

import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.numpy import load_file

import bertjax
from bertjax.config import preset_names

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_INSTALLED = "found no such package, expected it to be installed: pip install 'bertjax[data]'"
TINY = """
    --data.prepared-dir prepared --train.steps 2 --optimizer.warmup-steps 1 --train.batch-size 8
    --train.eval-every-steps 2 --train.save-every-steps 2
"""


def test_requirements_are_those_of_the_project_with_its_extra_data():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line.partition("#")[0].strip() for line in lines]
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["data"]
    assert sorted(str(Requirement(line)) for line in listed if line) == sorted(
        str(Requirement(text)) for text in declared
    )


def test_the_citation_has_the_package_s_version():
    assert f"\nversion: {bertjax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: an earlier build's files would go into another's."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("bertjax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]  # fmt: skip
    run = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """`bare(words)`: run the wheel's command, in a folder of its own, in an environment that has
    what the wheel asks for, without extras, and nothing else.

    Packages are links to those of this environment, so nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    link_packages(site, PROJECT["dependencies"])
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel]  # fmt: skip
    subprocess.run(install, check=True, capture_output=True)
    work = folder / "work"
    work.mkdir()
    python = folder / "venv" / "bin" / "python"
    start = "import sys; from bertjax.cli.main import main; sys.exit(main())"

    def run(words, code=start):
        command = [python, "-I", "-c", code, *words.split()]
        return subprocess.run(
            command, cwd=work, env=environment(), capture_output=True, text=True, timeout=600
        )

    run.folder = work
    return run


def link_packages(site, requirements):
    """Link the packages of `requirements`, and all that these require, from this environment."""
    queue = [Requirement(text) for text in requirements]
    seen = set()
    while queue:
        requirement = queue.pop()
        extras = requirement.extras or {""}
        marker = requirement.marker
        if marker and not marker.evaluate({"extra": ""}):
            continue
        package = importlib.metadata.distribution(requirement.name)
        if (package.name, *extras) in seen:
            continue
        seen.add((package.name, *extras))
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(package.locate_file(top)).resolve())
        for needed in map(Requirement, package.requires or ()):
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                needed.marker = None
                queue.append(needed)


def environment():
    """This process's environment without what the tests' configuration sets for JAX."""
    dropped = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in dropped}


@pytest.fixture(scope="module")
def pretrained(bare):
    """A run of two steps, made by the checkout, with a task beside it."""
    rng = random.Random(0)
    words = ["good", "bad", "film", "story", "the", "is", "very"]
    documents = ["\n".join(" ".join(rng.choices(words, k=8)) for _ in range(6)) for _ in range(80)]
    (bare.folder / "corpus.txt").write_text("\n\n".join(documents))
    (bare.folder / "task").mkdir()
    for split, examples in (("train", 16), ("dev", 8), ("test", 5)):
        labels = [rng.choice(["good", "bad"]) for _ in range(examples)]
        lines = ["sentence\tlabel", *(f"the film is very {label}\t{label}" for label in labels)]
        (bare.folder / "task" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (bare.folder / "lines.txt").write_text("the film is good\nthe story is very bad\n")
    for verb in (
        "prepare tiny --data.corpus corpus.txt --output-dir prepared --data.workers 1 --data.num-shards 1",
        f"train tiny --run-dir run {TINY}",
    ):
        command = [sys.executable, "-m", "bertjax.cli.main", *verb.split()]
        path = {"PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            command, cwd=bare.folder, env=environment() | path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
    return bare.folder / "run"


@pytest.mark.slow
def test_the_wheel_has_the_package_its_types_and_the_presets(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f"bertjax-{bertjax.__version__}-")
    assert {"bertjax/py.typed", "bertjax/cli/main.py"} <= names
    presets = {name for name in names if name.startswith("bertjax/presets/")}
    assert presets == {f"bertjax/presets/{name}.py" for name in preset_names()}
    assert not [name for name in names if not name.startswith(("bertjax/", "bertjax-"))]


@pytest.mark.slow
def test_without_a_checkout_presets_are_found_by_name_and_by_import(bare):
    assert "usage: bertjax VERB" in bare("--help").stdout
    help_ = bare("train fast/base --help")
    assert help_.returncode == 0
    # Lines are cut at the width of the terminal.
    assert "(default: gelu_tanh)" in " ".join(help_.stdout.replace("│", "").split())
    wrong = bare("train tini --run-dir x")
    assert wrong.returncode == 2
    assert "tini: found no such configuration file or preset" in wrong.stderr
    assert wrong.stderr.endswith("; the nearest is tiny\n")
    imported = bare("", "from bertjax.presets.fast import large; print(large.get_config().model.remat)")  # fmt: skip
    assert imported.stdout == "heads\n"
    # Its file has a name that no import statement can have, and it imports another folder's.
    by_name = bare("", "import bertjax; print(bertjax.load_config('17m').model.hidden_size)")
    assert by_name.stdout == "256\n"


@pytest.mark.slow
def test_without_tensorflow_a_model_is_fine_tuned_used_and_exported(bare, pretrained):
    assert "No module named 'tensorflow'" in bare("", "import tensorflow").stderr
    for command in (
        "finetune paper --init-from run --finetune.tasks tone:classification=task --run-dir tuned"
        " --finetune.max-seq-length 16 --train.batch-size 8 --finetune.epochs 1",
        "evaluate tuned",
        "predict tuned",
        "embed run lines.txt --output-file vectors.npy --pooling mean",
        "fill-mask run [MASK]",
        "zero-shot run good --labels good bad --template {}[MASK]",
        "inspect prepared",
        "export tuned --to exported",
        "export run --to program --format stablehlo",
        "import exported --to imported --drop classifier",
    ):
        run = bare(command)
        assert run.returncode == 0, f"{command}\n{run.stderr[-3000:]}"
    assert (bare.folder / "tuned" / "evaluation.json").exists()
    predictions = (bare.folder / "tuned" / "predictions" / "tone-test.tsv").read_text()
    assert len(predictions.splitlines()) == 1 + 5
    assert np.load(bare.folder / "vectors.npy").shape == (2, 128)
    config = json.loads((bare.folder / "exported" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert "classifier.weight" in load_file(bare.folder / "exported" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("command,package", [
    ("prepare tiny --data.corpus corpus.txt --output-dir other --data.workers 1", "tensorflow_datasets"),
    ("prepare tiny --data.corpus tfds:wikipedia --output-dir other", "tensorflow_datasets"),
    (f"train tiny --run-dir other-run {TINY}", "tensorflow"),
    ("evaluate run", "tensorflow"),
    ("finetune paper --init-from run --finetune.tasks rte=tfds:glue/rte --run-dir other-task", "tensorflow"),
    ("export run --to other --format tensorflow", "tensorflow"),
    ("export run --to other --format saved-model", "tensorflow"),
])  # fmt: skip
def test_without_tensorflow_what_needs_it_says_in_one_line_how_to_install_it(
    bare, pretrained, command, package
):
    run = bare(command)
    assert run.returncode == 2, run.stderr
    assert run.stderr.splitlines()[-1] == f"bertjax: {package}: {NOT_INSTALLED}"
    assert "Traceback" not in run.stderr
    assert not (bare.folder / "other").exists()
