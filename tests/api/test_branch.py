import contextlib
import json
import shutil
import subprocess

import jax
import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.training import checkpoint
from tests.killed import Commands
from tests.tiny_library import write_library
from tests.training.checkpoints import files_of
from tests.training.runs import params_of

# The configuration of a branch is tested every day (`test_branching.py`), its training here.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Two prepared folders of one tokenizer, and a run of six steps with kept checkpoints."""
    folder = write_library(tmp_path_factory.mktemp("branch"))
    with contextlib.chdir(folder):
        bertjax.prepare(config_of())
        short = {
            "max_seq_length": 16,
            "prepared_dir": "prepared/short",
            "max_predictions_per_seq": 3,
        }
        vocabulary = {"vocab_file": "prepared/tiny/tokenizer/vocab.txt"}
        bertjax.prepare(config_of().replace(data=short, tokenizer=vocabulary))
        bertjax.train(config_of(), "runs/base")
        yield folder


def config_of(phases=(), steps=6, **changes):
    config = bertjax.load_config("tiny.py")
    train = {"steps": steps, "keep_every_steps": 2, "eval_every_steps": 50, "save_every_steps": 50}
    return config.replace(
        phases=phases,
        train=train,
        optimizer={"schedule": "cosine", "warmup_steps": 2} | changes.pop("optimizer", {}),
        **changes,
    )


SHORT = (
    "steps=3 data.prepared_dir=prepared/short data.max_seq_length=16"
    " data.max_predictions_per_seq=3 optimizer.weight_decay=0.1"
)


def same(run, other):
    config = config_of()
    a, b = (params_of(each, config) for each in (run, other))
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    assert all(np.array_equal(x, y) for x, y in leaves)


@pytest.mark.parametrize("phases,decay", [
    ((SHORT,), None),
    ((SHORT,), {"steps": "2"}),
    ((), {"tokens": "1k", "shape": "linear"}),
])  # fmt: skip
def test_a_branch_equals_the_run_that_was_planned_so(library, phases, decay):
    number = f"{len(phases)}-{bool(decay)}"
    made = bertjax.branch("runs/base", 4, f"runs/branch-{number}", phases, decay=decay)
    assert made.checkpoint.name == "4"
    # The base run's cosine ends at step 6, which its branch must know.
    assert "optimizer.schedule_steps=6" in made.config.phases[0]
    end = bertjax.train(bertjax.load_config(str(made.run_dir / "config.json")), made.run_dir)
    planned = bertjax.train(made.config, f"runs/planned-{number}")
    assert end.step == planned.step == made.config.train.steps > 6
    same(made.run_dir, planned.run_dir)
    entries = [(run.run_dir / "metrics.jsonl").read_text().count("\n") for run in (end, planned)]
    assert entries[0] == entries[1]


def test_a_branch_of_a_branch_keeps_what_was_before(library):
    first = bertjax.branch("runs/base", 4, "runs/first", ["steps=4 optimizer.schedule=constant"])
    bertjax.train(first.config, "runs/first")
    second = bertjax.branch("runs/first", 6, "runs/second", decay={"steps": "2"})
    assert [text.split()[0] for text in second.config.phases] == ["steps=4", "steps=2", "steps=2"]
    bertjax.train(second.config, "runs/second")
    bertjax.train(second.config, "runs/second-planned")
    same("runs/second", "runs/second-planned")


def test_a_step_that_is_not_kept_is_refused_with_the_nearest(library):
    with pytest.raises(
        UserError, match="step 5: found no checkpoint, expected one of .*; the nearest is [46]"
    ):
        bertjax.branch("runs/base", 5, "runs/none", decay={"steps": "2"})
    assert not (library / "runs" / "none").exists()


def other_tokenizer(library):
    if not (library / "prepared" / "other").exists():
        bertjax.prepare(config_of().replace(
            data={"prepared_dir": "prepared/other"}, tokenizer={"vocab_size": 60},
        ))  # fmt: skip
    return "prepared/other"


@pytest.mark.parametrize("text,message", [
    ("steps=2 data.mixture=a=prepared/tiny,b=prepared/none", "prepared/none: found no such folder"),
    ("steps=2 data.prepared_dir=prepared/other", "prepared/other: tokenizer: found "),
    ("steps=2 data.max_seq_length=16", "max_seq_length: found 32 in the shards, expected 16"),
    ("steps=2 optimizer.schedule=sine", "optimizer.schedule: found 'sine'"),
    ("data.masking=token", "phases: found no length|train.steps"),
])  # fmt: skip
def test_later_phases_that_cannot_be_are_refused_and_nothing_is_written(library, text, message):
    other_tokenizer(library)
    with pytest.raises(UserError, match=message):
        bertjax.branch("runs/base", 4, "runs/none", [text])
    assert not (library / "runs" / "none").exists()
    with pytest.raises(UserError):
        bertjax.train(config_of(("steps=4", text)), "runs/none")
    assert not (library / "runs" / "none").exists()


def test_a_folder_with_files_is_refused_and_a_repeated_command_is_done(library):
    made = bertjax.branch("runs/base", 2, "runs/twice", decay={"steps": "2"})
    before = {path: path.read_bytes() for path in files_of(made.run_dir)}
    bertjax.branch("runs/base", 2, "runs/twice", decay={"steps": "2"})
    assert before == {path: path.read_bytes() for path in files_of(made.run_dir)}
    with pytest.raises(UserError, match="runs/base: found files there"):
        bertjax.branch("runs/base", 2, "runs/base", decay={"steps": "2"})


def test_a_branch_says_where_it_comes_from_and_is_evaluated_on_the_data_of_its_phase(library):
    made = bertjax.branch("runs/base", 4, "runs/told", [SHORT])
    meta = checkpoint.read_meta(made.checkpoint)
    assert meta["branched_from"]["step"] == 4
    assert meta["phase"] == 1
    bertjax.train(made.config, made.run_dir)
    config = checkpoint.read_checkpoint_config(made.run_dir / "checkpoints" / "7")
    assert config.data.max_seq_length == 16
    assert bertjax.evaluate(made.run_dir).metrics["instances"] > 0
    assert json.loads((made.run_dir / "config.json").read_text())["train"]["steps"] == 7


def test_all_checkpoints_are_exported_as_revisions(library):
    transformers = pytest.importorskip("transformers")
    folders = bertjax.export_checkpoints("runs/base", "exported", "huggingface")
    steps = [2, 4, 6]
    assert [folder.name for folder in folders] == [f"step{step}" for step in steps]
    model = transformers.AutoModel.from_pretrained(str(folders[0]))
    assert model.config.hidden_size == 32
    with pytest.raises(
        UserError, match="step 3: found no checkpoint, expected one of 2, 4, 6; the nearest"
    ):
        bertjax.export_checkpoints("runs/base", "exported", "huggingface", [2, 3])


def test_a_decay_from_a_learning_rate_of_0_is_refused(library):
    with pytest.raises(UserError, match="learning rate of step 6: found 0.0, expected .* above 0"):
        bertjax.branch("runs/base", 6, "runs/none", decay={"steps": "2"})


def test_a_model_without_an_optimizers_state_has_no_branch(library):
    folder = bertjax.export_model("runs/base", "exported/one", "huggingface")
    bertjax.import_model(folder, "runs/imported")
    with pytest.raises(UserError, match="checkpoints/0: found parameters alone, expected an optim"):
        bertjax.branch("runs/imported", 0, "runs/none", ["steps=2"])


def test_a_full_disk_leaves_no_branch(library, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        with pytest.raises(UserError, match="cannot be written|disk is full") as refused:
            bertjax.branch("runs/base", 4, disk / "run", ["steps=2"])
        assert "\n" not in str(refused.value)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_branch_is_made_by_the_same_command(library):
    commands = Commands("bertjax.cli.main:main", "bertjax.api.branch", "bertjax.cli.branch")
    try:
        config = config_of().replace(data={"prepared_dir": str(library / "prepared" / "tiny")})
        bertjax.train(config, "runs/absolute")
        words = ["branch", library / "runs" / "absolute", "--at", "4", "--phases", "steps=2"]
        whole, out = library / "runs" / "whole", library / "runs" / "killed"
        made = commands.run([*words, "--run-dir", whole], whole.parent)
        assert made.status == 0, made.errors
        expected = {path.relative_to(whole): path.read_bytes() for path in files_of(whole)}
        for change in range(1, made.changes + 1, max(1, made.changes // 5)):
            assert commands.run([*words, "--run-dir", out], whole.parent, at=change).status == -9
            again = commands.run([*words, "--run-dir", out])
            assert again.status == 0, again.errors
            found = {path.relative_to(out): path.read_bytes() for path in files_of(out)}
            # The record has the request, which is the same.
            assert found == expected
            assert {path.name for path in out.parent.iterdir()} & {".killed.bertjax-part"} == set()
            shutil.rmtree(out)
    finally:
        commands.close()
