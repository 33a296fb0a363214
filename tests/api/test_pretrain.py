"""`prepare` and `train` as a program calls them."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

import bertjax
from bertjax.cli.main import main
from bertjax.data.records.manifest import read_manifest
from bertjax.errors import UserError
from bertjax.storage import LockError, folder_lock
from bertjax.storage.holder import Host, this_process
from bertjax.training.logs.metrics_log import read_entries
from tests.factory import RUN_FOLDER
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a prepared corpus and a trained run in it, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(bertjax.load_config("tiny.py"))
        bertjax.train(bertjax.load_config("tiny.py"), "runs/tiny")
        yield folder


def test_a_run_has_all_its_files_and_nothing_is_printed(library, capsys):
    result = bertjax.train(bertjax.load_config("tiny.py"), "runs/again")
    assert capsys.readouterr().out == ""
    assert {path.name for path in result.run_dir.iterdir()} == RUN_FOLDER
    assert (result.step, result.stopped) == (2, False)
    assert result.checkpoint.name == "2"
    assert result.metrics["mlm_loss"] == bertjax.evaluate("runs/again").metrics["mlm_loss"]


def test_a_run_that_starts_from_a_model_takes_it_but_for_the_overrides(library):
    config = bertjax.load_config("tiny.py").replace(
        model_from_init=True,
        init_from="runs/tiny",
        model={"hidden_size": 64, "hidden_dropout_prob": 0.25},
    )
    bertjax.train(config, "runs/from", overrides=["model.hidden_dropout_prob"])
    model = json.loads((library / "runs" / "from" / "config.json").read_text())["model"]
    assert (model["hidden_size"], model["hidden_dropout_prob"]) == (32, 0.25)


def test_a_mistake_leaves_no_run_behind(library):
    config = bertjax.load_config("tiny.py")
    with pytest.raises(UserError, match="model.vocab_size: found 20, expected at least the"):
        bertjax.train(config.replace(model={"vocab_size": 20}), "runs/mistake")
    rounded = config.replace(finetune={"quantization_aware": "int8"})
    with pytest.raises(UserError, match="quantization_aware: found int8, expected none in pretr"):
        bertjax.train(rounded, "runs/mistake")
    with pytest.raises(UserError, match="max_seq_length: found 32 in the shards, expected 16"):
        bertjax.train(config.replace(data={"max_seq_length": 16}), "runs/mistake")
    assert not (library / "runs" / "mistake").exists()


@pytest.mark.parametrize("text,message", [
    ("data.mixture=a=prepared/tiny,b=prepared/none", "prepared/none: found no such folder"),
    ("data.max_seq_length=16", "max_seq_length: found 32 in the shards, expected 16"),
])  # fmt: skip
def test_a_later_phase_that_does_not_fit_its_folder_leaves_no_run_behind(library, text, message):
    config = bertjax.load_config("tiny.py").replace(phases=("steps=1", text))
    with pytest.raises(UserError, match=message):
        bertjax.train(config, "runs/mistake")
    assert not (library / "runs" / "mistake").exists()


def content_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def finished(content):
    return {path: b for path, b in content.items() if "orbax-checkpoint-tmp" not in str(path)}


def test_a_second_start_is_refused_before_it_touches_what_the_first_writes(library):
    run = library / "runs" / "shared"
    save = run / "checkpoints" / "1.orbax-checkpoint-tmp"
    with folder_lock(epath.Path(run), "train"):
        # Of a save that goes on; the next start removes what a kill left.
        save.mkdir(parents=True)
        (save / "part").write_text("half")
        before = content_of(run)
        for _ in range(2):
            with pytest.raises(LockError, match="found bertjax train .process .* at work on it"):
                bertjax.train(bertjax.load_config("tiny.py"), run)
        assert content_of(run) == before
    bertjax.train(bertjax.load_config("tiny.py"), run)
    assert not save.exists()
    assert {path.name for path in run.iterdir()} == RUN_FOLDER


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_who_has_lost_the_run_to_another_ends_in_one_line_and_writes_no_more(library, step, caplog):
    run = library / "runs" / f"lost{step}"
    others = this_process("train", Host("elsewhere", "")).to_bytes()
    content = {}

    def progress(stage, done, total):
        if done == step:
            (run / ".bertjax-lock").write_bytes(others)
            content.update(content_of(run))

    config = bertjax.load_config("tiny.py")
    config = config.replace(train={"log_every_steps": 1, "save_every_steps": 1})
    with pytest.raises(LockError, match="found bertjax train .process .* on elsewhere"):
        bertjax.train(config, run, progress=progress)
    # A save that had begun goes on in the background, and is no checkpoint.
    assert finished(content_of(run)) == finished(content)
    assert not [r for r in caplog.records if "cannot be written" in r.getMessage()]


@pytest.mark.slow
def test_of_two_starts_at_once_one_trains_and_the_other_ends_in_a_line(library):
    command = [sys.executable, "-m", "bertjax.cli.main", "train", "tiny.py"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for number in range(3):
        run = library / "runs" / f"two{number}"
        two = [
            subprocess.Popen([*command, f"--run-dir={run}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=environment)
            for _ in range(2)
        ]  # fmt: skip
        said = [process.communicate()[1] for process in two]
        statuses = [process.returncode for process in two]
        # The second may come when the first is done.
        assert sorted(statuses) in ([0, 2], [0, 0]), said
        for status, errors in zip(statuses, said, strict=True):
            if status == 2:
                assert re.fullmatch(r"bertjax: .*two\d: found bertjax train .*\n", errors), errors
        rows = [(row["step"], row["split"]) for row in read_entries(epath.Path(run))]
        assert rows == [(1, "train"), (2, "train"), (2, "validation")]
        assert {path.name for path in run.iterdir()} == RUN_FOLDER


def test_another_corpus_of_the_same_vocabulary_is_refused_whatever_is_deleted(library, tmp_path):
    run = epath.Path(tmp_path) / "run"
    shutil.copytree("runs/tiny", run)
    text = (library / "corpus.txt").read_text()
    (library / "other.txt").write_text(text.replace("cat sees", "dog sees"))
    config = bertjax.load_config("tiny.py")
    other = config.replace(
        data={"corpus": ("other.txt",), "prepared_dir": "prepared/other"},
        tokenizer={"vocab_file": "prepared/tiny/tokenizer/vocab.txt"},
    )
    bertjax.prepare(other)
    (run / "config.json").unlink()
    shutil.rmtree(run / "tokenizer")
    with pytest.raises(UserError) as refused:
        bertjax.train(config.replace(data={"prepared_dir": "prepared/other"}), run)
    message = str(refused.value)
    assert f"{run}/checkpoints/2: data, all: found" in message
    assert "in prepared/other, expected" in message
    assert "in prepared/tiny, on which it was trained" in message
    assert message.endswith("(or another --run-dir, or --train.data-changes 2)")
    assert "\n" not in message
    assert not (run / "config.json").exists()


@pytest.mark.parametrize("changes", [{"mesh": {"data": 3}}, {"train": {"batch_size": 3}}])
def test_a_mesh_or_a_batch_that_does_not_fit_leaves_no_run_behind(library, changes):
    config = bertjax.load_config("tiny.py").replace(**changes)
    with pytest.raises(UserError, match=r"mesh: found|train\.batch_size: found"):
        bertjax.train(config, "runs/misfit")
    assert not (library / "runs" / "misfit").exists()


def refuse_checkpoints(run):
    """Let no checkpoint be written into the folder of a run, by root neither."""
    os.symlink("/dev/null/nowhere", run / "checkpoints")


def test_a_start_that_failed_binds_neither_settings_nor_tokenizer(library):
    """It fails where the first checkpoint would lie, when `config.json` has been written."""
    run, config = library / "runs" / "failed", bertjax.load_config("tiny.py")
    run.mkdir()
    refuse_checkpoints(run)
    with pytest.raises(UserError, match="checkpoints"):
        bertjax.train(config.replace(train={"steps": 100_000}, seed=3), run)
    assert (run / "config.json").exists()
    # As if other data had been named.
    vocabulary = run / "tokenizer" / "vocab.txt"
    right = vocabulary.read_text()
    vocabulary.write_text(right + "another\n")
    (run / "checkpoints").unlink()
    assert bertjax.train(config, run).step == 2
    assert vocabulary.read_text() == right
    # Now it has begun.
    with pytest.raises(UserError, match=r"config\.json: seed: found 3, expected 0"):
        bertjax.train(config.replace(seed=3), run)
    vocabulary.write_text(right + "another\n")
    with pytest.raises(UserError, match="tokenizer"):
        bertjax.train(config, run)


def test_a_shard_that_is_not_the_manifests_is_refused_before_there_is_a_run(library, tmp_path):
    """Its first and last records, which a run's record of its data has, are the right ones."""
    folder = epath.Path(tmp_path) / "prepared"
    shutil.copytree("prepared/tiny", folder)
    manifest = read_manifest(folder)
    (shard,) = manifest.split("train")
    size = manifest.schemas["train"].record_bytes
    content = (folder / shard.name).read_bytes()
    copied = content[:size] + content[2 * size : 3 * size] + content[2 * size :]
    (folder / shard.name).write_bytes(copied)
    config = bertjax.load_config("tiny.py").replace(data={"prepared_dir": str(folder)})
    message = rf"{shard.name}: found other bytes than were written \(each record is whole"
    with pytest.raises(UserError, match=message):
        bertjax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # An evaluation reads held-out records alone, and compares those.
    bertjax.evaluate("runs/tiny", config)
    heldout = manifest.split("validation")[0].name
    (folder / heldout).write_bytes((folder / heldout).read_bytes()[::-1])
    with pytest.raises(UserError, match=rf"{heldout}: found other bytes"):
        bertjax.evaluate("runs/tiny", config)


def put_obstacles(run):
    """Let none of the files that watch a run be written, to root neither."""
    (run / "log.txt").mkdir(parents=True)
    (run / "tensorboard").write_text("")
    for name in ("metrics.jsonl", "report.html"):
        (run / f"{name}.unfinished" / "full").mkdir(parents=True)


def remove_obstacles(run):
    (run / "log.txt").rmdir()
    (run / "tensorboard").unlink()
    for name in ("metrics.jsonl", "report.html"):
        (run / f"{name}.unfinished" / "full").rmdir()
        (run / f"{name}.unfinished").rmdir()


def test_a_run_of_which_nothing_but_checkpoints_can_be_written_is_trained(
    library, caplog, known_unfinished_names
):
    """It says so once a file, and the next start says what is missing and has the same metrics."""
    run, config = library / "runs" / "unwatched", bertjax.load_config("tiny.py")
    put_obstacles(run)
    result = bertjax.train(config, run)
    assert (result.step, result.stopped) == (2, False)
    assert result.metrics == bertjax.train(config, "runs/tiny").metrics
    names = re.findall(r"unwatched/([a-z]+)\S*: cannot be written \(", caplog.text)
    assert sorted(names) == ["log", "metrics", "report", "tensorboard"]
    remove_obstacles(run)
    caplog.clear()
    again = bertjax.train(config, run)
    assert again == result
    assert "metrics.jsonl: no entries from step 1 to 2" in caplog.text
    assert {path.name for path in run.iterdir()} == RUN_FOLDER


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_start_on_a_full_disk_leaves_nothing_that_the_next_start_refuses(library, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        config = bertjax.load_config("tiny.py")
        with pytest.raises(UserError, match="cannot be written .No space left on device"):
            bertjax.train(config, disk / "run")
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert bertjax.train(config, disk / "run").step == 2
        assert {path.name for path in (disk / "run").iterdir()} == RUN_FOLDER
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_in_the_place_of_the_run_folder_is_named(library):
    (library / "notes.txt").write_text("notes")
    with pytest.raises(UserError, match=r"notes\.txt: cannot be written"):
        bertjax.train(bertjax.load_config(library / "tiny.py"), "notes.txt")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"max_sequences_per_row": 3}, marks=pytest.mark.slow),
        pytest.param({"dynamic_masking": True}, marks=pytest.mark.slow),
    ],
)
def test_a_held_out_split_of_one_document_is_evaluated_without_pairs(
    library, tmp_path, capsys, changes
):
    """Its masked words count; nothing tells a figure of next sentences, which it has not."""
    texts = (library / "corpus.txt").read_text().strip().split("\n\n")
    # Of three documents two are needed to train on: a random B comes from the other one.
    chosen = ["\n".join(texts[number::3]) for number in range(3)]
    (tmp_path / "one.txt").write_text("\n\n".join(chosen))
    words = [f"--data.{name.replace('_', '-')}={value}" for name, value in changes.items()]
    words += [f"--data.corpus={tmp_path / 'one.txt'}", f"--data.prepared-dir={tmp_path / 'out'}"]
    assert main(["prepare", "tiny.py", *words]) == 0
    printed = capsys.readouterr().out
    assert "validation: next sentence: no pairs, for the split has one document\n" in printed
    assert re.search(r"train: next sentence: \d\d\.\d% random of the pairs", printed)
    assert main(["inspect", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("next sentence: no pairs") == 1
    assert main(["train", "tiny.py", *words, "--run-dir", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "nsp" not in capsys.readouterr().out
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {"nsp_loss", "nsp_accuracy"} <= entries[0].keys()
    heldout = entries[-1]
    assert heldout["split"] == "validation"
    assert heldout["mlm_loss"] > 1
    assert not [name for name in heldout if name.startswith("nsp")]
    assert (
        'id="figure-nsp-accuracy" data-value' not in (tmp_path / "run" / "report.html").read_text()
    )
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(tmp_path / "out")
    for split in ("train", "validation"):
        read = builder.as_dataset(split=split, batch_size=-1)
        assert "input_ids" in read
        assert "next_sentence_labels" not in read


@pytest.mark.slow
def test_a_corpus_of_one_document_is_trained_on_without_held_out_data(library, tmp_path):
    text = (library / "corpus.txt").read_text().replace("\n\n", "\n")
    (tmp_path / "book.txt").write_text(text)
    config = bertjax.load_config("tiny.py").replace(
        data={
            "corpus": (str(tmp_path / "book.txt"),),
            "prepared_dir": str(tmp_path / "prepared"),
            "validation_fraction": 0.0,
            "sentence_objective": "sentence_order",
        },
        train={"steps": 6, "eval_every_steps": 2, "save_every_steps": 1, "keep_checkpoints": 2},
    )
    manifest = bertjax.prepare(config)
    assert not manifest.split("validation")
    result = bertjax.train(config, tmp_path / "run")
    assert (result.step, result.stopped, result.metrics) == (6, False, {})
    assert {path.name for path in result.run_dir.iterdir()} == RUN_FOLDER
    # Nothing tells which is the best, so the newest are kept.
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"5", "6"}
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {entry["split"] for entry in entries} == {"train"}
    assert "no held-out records: no evaluations" in (tmp_path / "run" / "log.txt").read_text()
    assert "held-out MLM loss" in result.report.read_text()
    longer = config.replace(train={"steps": 6, "eval_every_steps": 3})
    assert bertjax.train(longer, tmp_path / "run").step == 6
    with pytest.raises(
        UserError, match=r"prepared: found no held-out records, as prepared with .*fraction 0"
    ):
        bertjax.evaluate(tmp_path / "run")


@pytest.mark.slow
def test_a_mixture_is_evaluated_on_the_corpora_that_have_held_out_data(library, tmp_path):
    config = bertjax.load_config("tiny.py")
    bertjax.prepare(config, tmp_path / "whole")
    vocabulary = {"tokenizer": {"vocab_file": str(tmp_path / "whole" / "tokenizer" / "vocab.txt")}}
    bertjax.prepare(
        config.replace(data={"validation_fraction": 0.0}, **vocabulary), tmp_path / "none"
    )
    mixture = tuple(f"{name}={tmp_path / name}" for name in ("whole", "none"))
    config = config.replace(data={"mixture": mixture})
    metrics = bertjax.train(config, tmp_path / "run").metrics
    alone = bertjax.evaluate(
        tmp_path / "run",
        config.replace(data={"mixture": (), "prepared_dir": str(tmp_path / "whole")}),
    )
    assert metrics["mlm_loss"] == pytest.approx(alone.metrics["mlm_loss"])
    assert metrics["instances"] == alone.metrics["instances"]
