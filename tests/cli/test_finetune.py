"""`finetune`, `evaluate` and `predict` as their users call them."""

import json
import math
import shutil
from pathlib import Path

import pytest
from etils import epath

from bertjax.cli.main import main
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.interop.export_model import export_model
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.saved_model import save_model
from tests.factory import small_config
from tests.tasks.tiny import (
    MODEL,
    VOCABULARY,
    has_good,
    read_json_strictly,
    save_start,
    sentences,
    write_splits,
    write_table,
)

PAPER = str(Path(__file__).parents[2] / "configs" / "finetune" / "paper.py")
SHORT = [
    "--finetune.max-seq-length",
    "16",
    "--finetune.length-buckets",
    "16",
    "--train.batch-size",
    "16",
]


def bertjax(capsys, *words):
    """(exit status, output, errors)"""
    capsys.readouterr()
    status = main(list(map(str, words)))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_start(tmp_path_factory.mktemp("start") / "run", model={"heads": ("pooler", "mlm")})


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = write_splits(tmp_path_factory.mktemp("texts"), has_good, train=64, validation=24)
    write_table(
        folder / "test.tsv",
        [(n, text) for n, text in enumerate(sentences(10, seed=5))],
        ["id", "sentence"],
    )
    return folder


# From a model of transformers to predictions.


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A tiny BERT with random weights, as transformers saves it, with its tokenizer."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in VOCABULARY))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "initializer_range": 0.1,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    transformers.BertForPreTraining(transformers.BertConfig(**shape)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in VOCABULARY))
    return folder


@pytest.mark.slow
def test_a_model_of_transformers_is_fine_tuned_evaluated_and_asked(
    foreign, texts, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [
        "finetune",
        PAPER,
        "--init-from",
        foreign,
        "--finetune.tasks",
        f"good:classification={texts}",
        *SHORT,
    ]
    words += [
        "--finetune.epochs",
        "1",
        "--optimizer.peak-learning-rate",
        "6e-3",
        "--run-dir",
        "run",
    ]
    status, printed, errors = bertjax(capsys, *words)
    assert (status, "Traceback" in errors) == (0, False), errors
    run = epath.Path(tmp_path) / "run"
    lines = printed.splitlines()
    result = read_json_strictly(run / "result.json")
    assert lines[0] == f"checkpoint: {run}/checkpoints/{result['step']}"
    figures = dict(line.split(": ") for line in lines[1:-1])
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(
        result["figures"], abs=1e-4
    )
    assert lines[-1] == "report: run/report.html"
    assert {"evaluation.json", "report.html", "tokenizer", "init", "config.json", "log.txt"} <= {
        p.name for p in run.iterdir()
    }
    assert read_json_strictly(run / "evaluation.json")["figures"] == pytest.approx(
        result["figures"]
    )
    assert [row["step"] for row in read_entries(run) if row["split"] == "train"] == [1, 2, 3, 4]

    # The same command again finds it finished, and says the same.
    before = (run / "metrics.jsonl").read_bytes()
    assert bertjax(capsys, *words)[:2] == (0, printed)
    assert (run / "metrics.jsonl").read_bytes() == before

    (run / "evaluation.json").unlink()
    status, printed, _ = bertjax(capsys, "evaluate", run)
    assert (status, printed.splitlines()) == (0, lines[:-1])
    assert (run / "evaluation.json").exists()

    status, printed, _ = bertjax(capsys, "predict", run)
    path = run / "predictions" / "good-test.tsv"
    assert (status, printed.splitlines()) == (0, [lines[0], f"good, test: 10 examples: {path}"])
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert rows[0] == ["id", "sentence", "prediction", "probability"]
    assert [row[:2] for row in rows[1:]] == [
        [str(n), text] for n, text in enumerate(sentences(10, seed=5))
    ]

    write_table(tmp_path / "more.tsv", [("the good cat",), ("no dog",)], ["sentence"])
    words = [
        "predict",
        run,
        "--finetune.test-files",
        tmp_path / "more.tsv",
        "--output-dir",
        tmp_path / "out",
    ]
    assert bertjax(capsys, *words)[0] == 0
    assert len((tmp_path / "out" / "good-test.tsv").read_text().splitlines()) == 3
    status, printed, _ = bertjax(
        capsys, "predict", run, "--split", "validation", "--output-dir", tmp_path / "out"
    )
    assert (status, "good, validation: 24 examples" in printed) == (0, True)
    rows = [
        line.split("\t")
        for line in (tmp_path / "out" / "good-validation.tsv").read_text().splitlines()[1:]
    ]
    right = [row[2] == has_good(row[1]) for row in rows]
    assert sum(right) / 24 == pytest.approx(result["figures"]["accuracy"])

    # In transformers the exported model predicts what `predict` printed.
    status, printed, _ = bertjax(capsys, "export", run, "--to", tmp_path / "exported")
    assert (status, "model.safetensors" in printed) == (0, True)
    transformers = pytest.importorskip("transformers")
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "exported"))
    for _, text, label, probability in rows:
        (theirs,) = classify([text])
        assert theirs["label"] == label
        assert theirs["score"] == pytest.approx(float(probability), abs=1e-3)

    # A batch that the devices cannot share is a mistake of one line.
    status, _, errors = bertjax(capsys, "predict", run, "--train.batch-size", "6")
    assert (status, errors.count("\n")) == (2, 1)
    assert "train.batch_size: found 6" in errors


@pytest.mark.slow
def test_a_run_whose_validation_set_has_another_label_says_so_once(start, tmp_path, capsys):
    rows = [(text, has_good(text)) for text in sentences(24)]
    write_table(tmp_path / "train.tsv", rows[:16])
    write_table(tmp_path / "dev.tsv", [*rows[16:], ("the cat", "other"), ("one dog", "other")])
    run = tmp_path / "run"
    status, _, errors = bertjax(
        capsys, "finetune", PAPER, "--init-from", start, "--run-dir", run, *SHORT,
        "--finetune.tasks", f"my:classification={tmp_path}", "--finetune.epochs", 1,
    )  # fmt: skip
    assert status == 0, errors
    said = "my: examples with a label that training does not have: 2 of 10 (other: 2)"
    assert (run / "log.txt").read_text().count(said) == 1
    (split,) = read_json_strictly(run / "evaluation.json")["splits"]
    assert split["confusion"]["labels"] == ["no", "yes", "other"]
    assert sum(split["confusion"]["counts"][2]) == 2
    assert math.isfinite(split["figures"]["loss"])


# Mistakes: status 2 and one line, before anything is compiled.


def conll(folder, train, dev="the\tO\n"):
    (folder / "train.txt").write_text(train)
    (folder / "dev.txt").write_text(dev)


def table(folder, train, dev):
    for name, lines in (("train.tsv", train), ("dev.tsv", dev)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


GOOD = ["sentence\tlabel", "the cat\ta", "no dog\tb"]
MISTAKES = {
    "a task that is not known": (None, "mine={}", [], "finetune.tasks: found mine={}, expected one of the names cola, sst2, "),
    "a kind that is not known": (None, "mine:parsing={}", [], "finetune.tasks: found mine:parsing={}, expected"),
    "a task without a place": (None, "rte", [], "finetune.tasks: found rte, expected NAME=PLACE"),
    "a folder that is not there": (None, "rte={}/nowhere", [], "{}/nowhere: found no such folder, expected a folder"),
    "a folder without the files": (
        None, "rte={}", [], "{}, split train: found none, expected train.* (or finetune.train_files to name it)",
    ),
    "a wrong number of columns": (
        lambda folder: table(folder, [*GOOD, "one\tb\tmore"], GOOD),
        "my:classification={}", [], "{}/train.tsv, line 4: found 3 columns, expected 2 (sentence, label)",
    ),
    "a column that is not there": (
        lambda folder: table(folder, GOOD, GOOD),
        "my:classification={}", ["--finetune.text-columns", "words"],
        "{}/train.tsv, line 2: found the columns sentence, label, expected 'words' among them",
    ),
    "labels that training does not have": (
        lambda folder: table(folder, GOOD, [GOOD[0], "one\tc", "no\td"]),
        "my:classification={}", [], "task my: found the labels c, d alone, expected labels of training: a, b",
    ),
    "a list as one class": (
        lambda folder: table(folder, [*GOOD, "one\t[0, 1]"], GOOD), "my:classification={}", [],
        "{}/train.tsv, line 4: found the list [0, 1], expected one class (or finetune.label_type classes)",
    ),
    "an encoding that is not known": (
        None, "my:classification={}", ["--finetune.encoding", "utf-16"],
        "finetune.encoding: found utf-16, expected the name of an encoding that contains ASCII, such as latin-1",
    ),
    "a label that is none of the task's": (
        lambda folder: table(folder, ["sentence1\tsentence2\tlabel", "a\tb\tmaybe"], GOOD),
        "rte={}", [], "{}/train.tsv, line 2: found the label 'maybe', expected one of entailment, not_entailment",
    ),
    "one class alone": (
        lambda folder: table(folder, GOOD[:2], GOOD[:2]), "my:classification={}", [],
        "task my: labels: found a, expected 2 or more",
    ),
    "a label that is no number": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}", ["--finetune.label-type", "number"],
        "{}/train.tsv, line 2: found the label 'a', expected a number",
    ),
    "an empty split": (
        lambda folder: table(folder, GOOD, []), "my:classification={}", [],
        "{}, split validation: found no row, expected one or more",
    ),
    "a split without a label": (
        lambda folder: table(folder, GOOD, ["sentence\tlabel", "the cat\t"]), "my:classification={}", [],
        "{}, split validation: found no example with a label, expected one or more",
    ),
    "tags that break the rules": (
        lambda folder: conll(folder, "the\tO\nrome\tB-LOC\nparis\tI-LOC\n\ncat\tO\nrome\tI-LOC\n"), "ner={}", [],
        "sentence train.txt:5, word 2 'rome': found I-LOC after O, expected a sequence by the rules of IOB2"
        " (or --finetune.metric accuracy, over words)",
    ),
    "a word without a tag": (
        lambda folder: conll(folder, "the\tO\nrome\n"), "ner={}", [], "{}/train.txt, line 2: found",
    ),
    "a tag that training does not have": (
        lambda folder: conll(folder, "rome\tB-LOC\n", "the\tB-PER\n"), "ner={}", [],
        "ner: sentence dev.txt:1: found the types PER alone, expected types of training: LOC",
    ),
    "rows longer than the model": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}", ["--finetune.max-seq-length", "17"],
        "finetune.max_seq_length: found 17, expected at most the model's positions (16)",
    ),
    "more new layers than there are": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}", ["--finetune.reinit-layers", "3"],
        "finetune.reinit_layers: found 3, expected at most the model's layers",
    ),
    "files of several tasks": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}",
        ["your:classification={}", "--finetune.train-files", "train.tsv"],
        "finetune.train_files: found ('train.tsv',), expected none where there are several tasks",
    ),
    "one task twice": (
        None, "sst2={}", ["SST-2={}"], "finetune.tasks: found sst2, sst2, expected each task once",
    ),
    "balanced weights of a class that never occurs": (
        lambda folder: table(folder, *[["sentence\tlabel", "a\t1"]] * 2), "sst2={}",
        ["--finetune.class-weights", "balanced"],
        "class_weights balanced, label negative: found no training example, expected one or more",
    ),
    "a batch that the devices cannot share": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}", ["--train.batch-size", "6"],
        "train.batch_size: found 6, expected a multiple of the devices",
    ),
    "an option that is none": (
        None, "sst2={}", ["--finetune.epoch", "3"], "--finetune.epoch: no such option",
    ),
    "a sweep of no sense": (
        lambda folder: table(folder, GOOD, GOOD), "my:classification={}", ["--learning-rates", "-1"], "grid.learning_rates: found (-1.0,), expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_status_2_and_one_line_that_names_it(start, tmp_path, capsys, name):
    make, task, more, expected = MISTAKES[name]
    data = tmp_path / "data"
    data.mkdir()
    if make:
        make(data)
    words = ["--init-from", start, "--run-dir", tmp_path / "run", *SHORT, "--finetune.tasks", task]
    status, printed, errors = bertjax(
        capsys, "finetune", PAPER, *[str(word).replace("{}", str(data)) for word in [*words, *more]]
    )
    assert (status, printed) == (2, "")
    *logged, last = errors.splitlines()
    assert last.startswith("bertjax: " + expected.replace("{}", str(data))), errors
    assert all(" INFO " in line for line in logged), errors
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture(scope="module")
def transformers_folder(start, tmp_path_factory):
    """The start as a model folder of transformers."""
    return export_model(start, tmp_path_factory.mktemp("foreign") / "model", "huggingface")


@pytest.mark.parametrize("name", [
    "a task that is not known", "a folder that is not there", "labels that training does not have",
    "rows longer than the model", "a batch that the devices cannot share",
])  # fmt: skip
def test_a_mistake_leaves_nothing_of_a_model_that_would_have_been_imported(
    transformers_folder, tmp_path, capsys, name
):
    make, task, more, expected = MISTAKES[name]
    data = tmp_path / "data"
    data.mkdir()
    if make:
        make(data)
    words = ["--init-from", transformers_folder, "--run-dir", tmp_path / "run", *SHORT]
    words += ["--finetune.tasks", task, *more]
    words = [str(word).replace("{}", str(data)) for word in words]
    status, _, errors = bertjax(capsys, "finetune", PAPER, *words)
    assert status == 2
    assert expected.replace("{}", str(data)) in errors
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_to_start_from_must_be_said_and_be_there(texts, tmp_path, capsys):
    task = ["--finetune.tasks", f"good:classification={texts}", "--run-dir", tmp_path / "run"]
    status, _, errors = bertjax(capsys, "finetune", PAPER, *task)
    assert status == 2
    assert (
        errors
        == "bertjax: init_from: found nothing, expected a folder to take the model from, as model_from_init says\n"
    )
    status, _, errors = bertjax(
        capsys, "finetune", PAPER, "--init-from", tmp_path / "nowhere", *task
    )
    assert (status, errors.count("\n")) == (2, 1)
    assert f"{tmp_path}/nowhere: found no checkpoint" in errors
    assert not (tmp_path / "run").exists()


def test_no_task_at_all_is_a_mistake(start, tmp_path, capsys):
    status, _, errors = bertjax(
        capsys, "finetune", PAPER, "--init-from", start, "--run-dir", tmp_path / "run", *SHORT
    )
    assert (status, errors) == (
        2,
        "bertjax: finetune.tasks: found none, expected one or more, as rte=data/RTE\n",
    )


def test_a_model_without_a_tokenizer_is_refused(texts, tmp_path, capsys):
    import jax
    import numpy as np

    from bertjax.model import functional

    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), functional.shapes(MODEL))
    save_model(tmp_path / "start", small_config(model=MODEL), params, None, {})
    task = ["--finetune.tasks", f"good:classification={texts}", "--run-dir", tmp_path / "run"]
    status, _, errors = bertjax(
        capsys, "finetune", PAPER, "--init-from", tmp_path / "start", *task, *SHORT
    )
    assert (status, errors.count("\n")) == (2, 1)
    assert f"{tmp_path}/start/tokenizer" in errors
    assert "found no tokenizer, expected a saved one" in errors


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_what_is_no_fine_tuned_model_is_not_asked(start, tmp_path, capsys, verb):
    status, _, errors = bertjax(capsys, verb, tmp_path)
    assert (status, errors.count("\n")) == (2, 1)
    assert "found no checkpoint" in errors
    status, _, errors = bertjax(capsys, verb)
    assert (status, errors.startswith(f"bertjax: bertjax {verb}: nothing given")) == (2, True)
    if verb == "predict":
        status, _, errors = bertjax(capsys, verb, start)
        assert (status, errors.count("\n")) == (2, 1)
        assert "found a model without a task, expected one that `bertjax finetune` made" in errors


@pytest.mark.slow
def test_a_sweep_prints_its_table_and_its_best_run(start, texts, tmp_path, capsys):
    words = [
        "finetune",
        PAPER,
        "--init-from",
        start,
        "--finetune.tasks",
        f"good:classification={texts}",
        *SHORT,
    ]
    words += [
        "--seeds",
        "0",
        "1",
        "--learning-rates",
        "6e-3",
        "--epochs",
        "2",
        "--run-dir",
        tmp_path / "run",
    ]
    status, printed, _ = bertjax(capsys, *words)
    assert status == 0
    lines = printed.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["1 of 2", "2 of 2"]
    assert lines[2] == "score: accuracy"
    assert lines[3].split()[:2] == ["batch", "size"]
    (best,) = [line.removeprefix("best run: ") for line in lines if line.startswith("best run: ")]
    assert best.startswith(
        f"{tmp_path}/run/cells/batch_size-16,peak_learning_rate-0.006,epochs-2,seed-"
    )
    assert lines[-1] == f"report: {best}/report.html"
    assert (Path(best) / "evaluation.json").exists()
    assert len(json.loads((tmp_path / "run" / "sweep.json").read_text())["cells"]) == 2
    assert bertjax(capsys, "predict", best)[0] == 0


@pytest.mark.slow
def test_a_runs_folder_keeps_the_model_that_was_imported_into_it(foreign, texts, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(foreign, again)
    task = ["--finetune.tasks", f"good:classification={texts}", "--finetune.epochs", "1"]
    words = ["finetune", PAPER, *SHORT, *task, "--run-dir"]
    # What a kill left of an import is no obstacle.
    (tmp_path / "run" / "init.bertjax-part" / "checkpoints").mkdir(parents=True)
    assert bertjax(capsys, *words, tmp_path / "run", "--init-from", foreign)[0] == 0
    assert [path.name for path in (tmp_path / "run").glob("init*")] == ["init"]
    status, _, errors = bertjax(capsys, *words, tmp_path / "run", "--init-from", again)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert (
        f"run/init: found the model of {foreign}, expected that of {again} (another --run-dir)"
        in errors
    )
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (again / name).unlink(missing_ok=True)
    status, _, errors = bertjax(capsys, *words, tmp_path / "bare", "--init-from", again)
    assert (status, errors) == (
        2,
        f"bertjax: {again}: found no vocabulary, expected vocab.txt or another tokenizer's files\n",
    )
    assert not (tmp_path / "bare").exists()


def test_a_run_keeps_its_tokenizer_whatever_is_asked_of_its_folder(start, texts, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "tokenizer").parent.mkdir()
    WordPiece("vocab.txt", "\n".join([*VOCABULARY, "other"]).encode(), lowercase=True).save(
        run / "tokenizer"
    )
    # Before its first update a run is that of a start that failed, and binds nothing.
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    before = {path.name: path.read_bytes() for path in (run / "tokenizer").iterdir()}
    words = [
        "--init-from",
        start,
        "--run-dir",
        run,
        *SHORT,
        "--finetune.tasks",
        f"good:classification={texts}",
    ]
    status, _, errors = bertjax(capsys, "finetune", PAPER, *words)
    assert (status, "run/tokenizer: found tokenizer" in errors) == (2, True)
    assert {path.name: path.read_bytes() for path in (run / "tokenizer").iterdir()} == before
