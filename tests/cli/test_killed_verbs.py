"""Verbs that write, killed at drawn moments: the same command then makes what it would have made.

Each is killed before drawn ones of its changes of the disk, and after drawn times.
"""

import json
import random
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.finetuning.objective import TaskObjective
from bertjax.inference.static_table import read_static_table
from bertjax.interop.export_model import LAST
from bertjax.storage.folder_lock import NAME as LOCK
from bertjax.storage.outputs import PART, RECORD
from bertjax.tasks import registry
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.training.saved_model import load_model, save_model
from tests.killed import Commands
from tests.storage.test_outputs import content_of, names_in
from tests.tasks.tiny import (
    MODEL,
    TOKENIZER,
    config_of,
    has_good,
    sentences,
    write_splits,
    write_table,
)
from tests.waiting import until

pytestmark = pytest.mark.slow

CHANGES, TIMES = 4, 2
"""How many kills there are of each verb, before changes of the disk and after times."""
MODULES = (
    "bertjax.cli.export", "bertjax.cli.import_", "bertjax.cli.grow", "bertjax.cli.embed",
    "bertjax.cli.prune", "bertjax.compression.prune.prune",
    "bertjax.cli.quantize", "bertjax.compression.quantize.quantize",
    "bertjax.cli.distill", "bertjax.compression.static.distill_static",
    "bertjax.api.evaluate", "bertjax.interop.export_model", "bertjax.interop.import_model",
    "bertjax.interop.extend.grow", "bertjax.inference.vector_files", "orbax.checkpoint",
)  # fmt: skip


@pytest.fixture(scope="module")
def commands():
    commands = Commands("bertjax.cli.main:main", *MODULES)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fine-tuned model `run`, its task, texts `texts.txt`, and words `words.txt`."""
    folder = tmp_path_factory.mktemp("killed")
    task = write_splits(folder / "good", has_good, train=8, validation=8)
    tests = [(number, text) for number, text in enumerate(sentences(4, seed=5))]
    write_table(task / "test.tsv", tests, ["id", "sentence"])
    judged = SingleLabel("good", ("no", "yes"), ("accuracy",))
    params = jax.jit(TaskObjective(MODEL, (judged,)).init)(jax.random.key(3))
    config = config_of(f"good:classification={task}", mesh={"data": 1})
    save_model(folder / "run", config, params, TOKENIZER, {"tasks": [registry.to_plain(judged)]})
    (folder / "texts.txt").write_text("\n".join(sentences(3000)) + "\n")
    (folder / "words.txt").write_text("newword\nother\n")
    return folder


def written(run):
    """What a folder holds that is the same each time; of a run its configuration and numbers."""
    files = content_of(run) if run.is_dir() else {run.name: run.read_bytes()}
    if not (run / "checkpoints").exists():
        # TensorFlow numbers its objects as it likes.
        return {k: b"" if k.endswith((".pb", ".index")) else v for k, v in files.items()}
    model = load_model(run)
    values = {jax.tree_util.keystr(k): np.asarray(v).tobytes()
              for k, v in jax.tree_util.tree_leaves_with_path(model.params)}  # fmt: skip
    kept = {name: files[name] for name in files if not name.startswith("checkpoints")}
    return kept | values | {"meta": files["checkpoints/0/meta/metadata"]}


def moments(commands, words, out, seed):
    """Keyword arguments of kills, drawn; and what the command writes when it is left alone."""
    whole = commands.run([*words, out], out.parent)
    assert whole.status == 0, whole.errors
    rng = random.Random(seed)
    at = rng.sample(range(1, whole.changes), min(CHANGES, whole.changes - 1))
    after = [rng.uniform(0.2, whole.seconds) for _ in range(TIMES)]
    return [{"at": number} for number in at] + [{"after": seconds} for seconds in after]


def killed_and_repeated(commands, words, folder, name, *, there=False, reader=lambda out: None):
    """Kill the command `words OUT` at drawn moments, and repeat it; count kills that struck."""
    out = folder / "whole" / name
    out.parent.mkdir(parents=True)
    drawn = moments(commands, words, out, seed=f"{words}")
    expected, beside, struck = written(out), names_in(out.parent), 0
    for number, moment in enumerate(drawn):
        out = folder / str(number) / name
        out.parent.mkdir()
        if there:
            out.mkdir()
        ended = commands.run([*words, out], out.parent, **moment)
        assert ended.status in (0, -9), ended.errors
        struck += ended.status == -9
        reader(out)
        again = commands.run([*words, out], out.parent)
        assert again.status == 0, (moment, again.errors)
        assert written(out) == expected, moment
        assert names_in(out.parent) == beside, moment
        assert not names_in(out) & {PART} if out.is_dir() else True
        # Once more, now that it is whole.
        if number == 0:
            assert commands.run([*words, out]).status == 0
    print(f"{words[0]} {name}: {struck} kills of {len(drawn)} struck")
    return struck


@pytest.mark.parametrize(
    "format,there",
    [
        ("huggingface", False),
        ("huggingface", True),
        ("tensorflow", False),
        ("stablehlo", True),
        ("saved-model", False),
        ("onnx", False),
    ],
)
def test_a_killed_export_is_made_by_the_same_command(commands, folder, tmp_path, format, there):
    if format == "onnx":
        pytest.importorskip("onnx")

    def whole_or_empty(out):
        record = json.loads((out / RECORD).read_text()) if (out / RECORD).exists() else {}
        assert record.get("whole") or not (out / LAST[format]).exists()

    words = ["export", folder / "run", "--format", format, "--to"]
    assert killed_and_repeated(commands, words, tmp_path, "out", there=there, reader=whole_or_empty)


def test_a_killed_table_of_word_vectors_is_made_by_the_same_command(commands, folder, tmp_path):
    def whole_or_no_table(out):
        if (out / "model.safetensors").exists():
            assert read_static_table(out).width == 8

    words = ["distill", "--static", folder / "run", "--dimensions", "8", "--to"]
    for there in (False, True):
        place = tmp_path / str(there)
        assert killed_and_repeated(
            commands, words, place, "out", there=there, reader=whole_or_no_table
        )


def test_killed_verbs_that_make_a_run_are_made_by_the_same_command(commands, folder, tmp_path):
    def whole_or_refused(out):
        if not (out / "checkpoints").exists():
            with pytest.raises(UserError, match="no checkpoint|not whole"):
                load_model(out)

    words = ["grow", folder / "run", "--new-tokens", folder / "words.txt", "--to"]
    assert killed_and_repeated(commands, words, tmp_path / "grow", "out", reader=whole_or_refused)
    words = ["prune", folder / "run", "--heads", "0.5", "--mlp", "0.5", "--batches", "1",
             "--measure", "False", "--to"]  # fmt: skip
    assert killed_and_repeated(commands, words, tmp_path / "prune", "out", reader=whole_or_refused)
    model = tmp_path / "model"
    export = ["export", folder / "run", "--format", "huggingface", "--to", model]
    assert commands.run(export).status == 0
    words = ["import", model, "--drop", "classifier", "--to"]
    for there in (False, True):
        assert killed_and_repeated(
            commands, words, tmp_path / f"import-{there}", "out",
            there=there, reader=whole_or_refused,
        )  # fmt: skip


@pytest.mark.parametrize("name,pooling", [("out.npy", "tokens"), ("out.parquet", "mean")])
def test_a_killed_embed_is_made_by_the_same_command(commands, folder, tmp_path, name, pooling):
    def whole_or_absent(out):
        if out.exists() and pooling == "tokens":
            vectors, offsets = np.load(out), np.load(out.parent / "out.offsets.npy")
            assert (len(offsets), offsets[-1]) == (3001, len(vectors))

    words = ["embed", folder / "run", folder / "texts.txt", "--pooling", pooling, "--output-file"]
    assert killed_and_repeated(commands, words, tmp_path, name, reader=whole_or_absent)


def test_killed_predictions_are_made_by_the_same_command(commands, folder, tmp_path):
    words = ["predict", folder / "run", "--output-dir"]
    assert killed_and_repeated(commands, words, tmp_path, "out")


def test_a_killed_evaluation_is_made_by_the_same_command(commands, folder):
    run, words = folder / "run", ["evaluate", folder / "run"]
    whole = commands.run(words, run)
    assert whole.status == 0, whole.errors
    expected, names = (run / "evaluation.json").read_bytes(), names_in(run)
    rng = random.Random(1)
    for moment in [{"at": n} for n in range(1, whole.changes, 2)] + [
        {"after": rng.uniform(0.2, 3)}
    ]:
        (run / "evaluation.json").unlink(missing_ok=True)
        assert commands.run(words, run, **moment).status in (0, -9)
        if (run / "evaluation.json").exists():
            assert (run / "evaluation.json").read_bytes() == expected
        again = commands.run(words, run)
        assert (again.status, again.out) == (0, whole.out), again.errors
        assert (run / "evaluation.json").read_bytes() == expected
        assert names_in(run) == names


def test_a_killed_quantize_is_made_by_the_same_command(commands, folder, tmp_path):
    pytest.importorskip("onnxruntime")

    def whole_or_absent(out):
        assert (out / "card.json").exists() or not (out / "model.onnx").exists()

    words = ["quantize", folder / "run", "--max-loss", "90%", "--seconds", "0", "--threads", "1"]
    words.append("--to")
    assert killed_and_repeated(commands, words, tmp_path, "out", reader=whole_or_absent)


@pytest.mark.parametrize("verb", [
    "export", "grow", "prune", "distill", "import", "quantize", "embed", "predict", "evaluate"
])  # fmt: skip
def test_of_two_at_once_the_second_is_refused_and_the_first_ends_well(
    commands, folder, tmp_path, verb
):
    run, out = folder / "run", tmp_path / "out"
    if verb == "import":
        export = ["export", run, "--format", "huggingface", "--to", tmp_path / "model"]
        assert commands.run(export).status == 0
    lock = tmp_path / f".out{LOCK}"
    words, lock = {
        "export": (["export", run, "--to", out], lock),
        "grow": (["grow", run, "--max-seq-length", "32", "--to", out], lock),
        "quantize": (
            ["quantize", run, "--max-loss", "90%", "--seconds", "0", "--to", out],
            lock,
        ),
        "prune": (["prune", run, "--layers", "1", "--measure", "False", "--to", out], lock),
        "distill": (["distill", "--static", run, "--to", out], lock),
        "import": (["import", tmp_path / "model", "--drop", "classifier", "--to", out], lock),
        "embed": (
            ["embed", run, folder / "texts.txt", "--output-file", tmp_path / "out.npy"],
            tmp_path / f".out.npy{LOCK}",
        ),
        "predict": (["predict", run, "--output-dir", out], out / f".test{LOCK}"),
        "evaluate": (["evaluate", run], run / f".evaluation.json{LOCK}"),
    }[verb]
    first = subprocess.Popen(
        [sys.executable, "-m", "bertjax.cli.main", *map(str, words)],
        env=commands.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lock.exists, process=first)
        first.send_signal(signal.SIGSTOP)
        second = commands.run(words)
        first.send_signal(signal.SIGCONT)
        errors = first.communicate()[1]
    finally:
        first.kill()
    assert second.status == 2
    assert f"found bertjax {verb} (process {first.pid} on " in second.errors
    assert len([line for line in second.errors.splitlines() if line.startswith("bertjax")]) == 1
    assert first.returncode == 0, errors
    # It is whole, so the same command again succeeds.
    assert commands.run(words).status == 0
    assert not lock.exists()
