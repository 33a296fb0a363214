"""`finetune` and `sweep` as a program calls them."""

import contextlib
import functools
import json
import random
import shutil
from pathlib import Path

import pytest
from etils import epath

import bertjax
from bertjax.errors import UserError
from bertjax.finetuning.load import load_finetuned
from bertjax.finetuning.sweep_grid import cells
from bertjax.storage import LockError, folder_lock
from tests.api.test_pretrain import put_obstacles, refuse_checkpoints, remove_obstacles
from tests.tasks.tiny import has_good, write_splits
from tests.tiny_library import write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a pretrained run in it, and the run as a model folder of transformers."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(bertjax.load_config("tiny.py"))
        bertjax.train(bertjax.load_config("tiny.py"), "runs/tiny")
        bertjax.export_model("runs/tiny", "foreign", "huggingface")
        yield folder


def test_a_model_of_transformers_is_imported_into_the_run_and_nothing_is_printed(library, capsys):
    config = bertjax.load_config("finetune.py").replace(init_from="foreign")
    result = bertjax.finetune(config, "runs/imported")
    assert capsys.readouterr().out == ""
    run = library / "runs" / "imported"
    assert json.loads((run / "config.json").read_text())["init_from"] == "runs/imported/init"
    assert result.metrics == json.loads((run / "evaluation.json").read_text())["figures"]
    assert (result.stopped, result.report.exists()) == (False, True)
    # Again it finds the imported model and the finished run.
    assert bertjax.finetune(config, "runs/imported") == result


def test_a_second_run_or_sweep_in_one_folder_is_refused_and_touches_nothing(library):
    config = bertjax.load_config("finetune.py")
    folder = epath.Path(library) / "runs" / "shared"
    grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3,), epochs=(1,), seeds=(0,))
    with folder_lock(folder, "finetune"):
        # Of an import that goes on; the next start removes what a kill left.
        (folder / "init.part").mkdir()
        for start in (bertjax.finetune, functools.partial(bertjax.sweep, grid=grid)):
            with pytest.raises(LockError, match="shared: found bertjax finetune .process"):
                start(config.replace(init_from="foreign"), folder)
        assert sorted(path.name for path in folder.iterdir()) == [".bertjax-lock", "init.part"]


@pytest.mark.slow
def test_a_start_that_failed_binds_neither_settings_nor_the_model_it_imported(library):
    run, config = library / "runs" / "failed", bertjax.load_config("finetune.py")
    shutil.copytree("foreign", "another")
    run.mkdir()
    refuse_checkpoints(run)
    with pytest.raises(UserError, match="checkpoints"):
        bertjax.finetune(config.replace(init_from="another", seed=3), run)
    assert (run / "init" / "checkpoints").exists()
    (run / "checkpoints").unlink()
    bertjax.finetune(config.replace(init_from="foreign"), run)
    # Now it has begun.
    with pytest.raises(UserError, match=r"init: found the model of foreign, expected that of anot"):
        bertjax.finetune(config.replace(init_from="another"), run)
    with pytest.raises(UserError, match=r"config\.json: seed: found 3, expected 0"):
        bertjax.finetune(config.replace(init_from="foreign", seed=3), run)


@pytest.mark.slow
def test_a_sweep_that_failed_binds_neither_settings_nor_the_model_it_imported(library):
    run, config = library / "runs" / "failed_sweep", bertjax.load_config("finetune.py")
    shutil.copytree("foreign", "third")
    grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3,), epochs=(1,), seeds=(0,))
    (cell,) = (each.folder for each in cells(grid))
    (run / "cells" / cell).mkdir(parents=True)
    refuse_checkpoints(run / "cells" / cell)
    other = config.replace(init_from="third", finetune={"label_smoothing": 0.1})
    with pytest.raises(UserError, match="checkpoints"):
        bertjax.sweep(other, run, grid)
    (run / "cells" / cell / "checkpoints").unlink()
    config = config.replace(init_from="foreign")
    assert len(bertjax.sweep(config, run, grid).cells) == 1
    with pytest.raises(
        UserError, match=r"init: found the model of foreign, expected that of third"
    ):
        bertjax.sweep(config.replace(init_from="third"), run, grid)
    with pytest.raises(UserError, match=r"label_smoothing: found 0\.1, expected 0\.0"):
        bertjax.sweep(config.replace(finetune={"label_smoothing": 0.1}), run, grid)


def test_a_run_whose_metrics_cannot_be_written_has_the_same_result(
    library, caplog, known_unfinished_names
):
    config = bertjax.load_config("finetune.py")
    expected = bertjax.finetune(config, "runs/watched")
    run = library / "runs" / "unwatched"
    put_obstacles(run)
    result = bertjax.finetune(config, run)
    assert (result.metrics, result.step) == (expected.metrics, expected.step)
    remove_obstacles(run)
    # As after a kill before the result was written: its figures are nowhere but in the model.
    before = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    assert bertjax.finetune(config, run).metrics == expected.metrics
    assert json.loads((run / "result.json").read_text()) == before
    assert "metrics.jsonl: no entries from step 1 to" in caplog.text


@pytest.mark.slow
def test_registered_tokens_have_the_ids_of_the_source_after_finetuning_and_export(library):
    transformers = pytest.importorskip("transformers")
    marks = ["<user>", "[E1]", "<A>"]
    shutil.copytree("foreign", "marked")
    Path("marked/tokenizer.json").unlink()
    *entries, _, _, _ = Path("marked/vocab.txt").read_text().split()
    Path("marked/vocab.txt").write_text("\n".join([*entries, *marks]))
    settings = {"tokenizer_class": "BertTokenizer", "additional_special_tokens": marks}
    Path("marked/tokenizer_config.json").write_text(json.dumps(settings))
    config = bertjax.load_config("finetune.py").replace(init_from="marked")
    bertjax.finetune(config, "runs/marked")
    bertjax.export_model("runs/marked", "marked_again", "huggingface")
    chosen, parts = random.Random(0), [*marks, *marks, *(mark.lower() for mark in marks)]
    # Text that spells a special token becomes it there, and not here.
    parts += entries[5:]
    texts = []
    for _ in range(2000):
        picked = chosen.choices(parts, k=8)
        texts.append("".join(part + chosen.choice(("", " ")) for part in [*picked, "<user>"]))
    read = [
        transformers.AutoTokenizer.from_pretrained(name)(texts)["input_ids"]
        for name in ("marked", "marked_again")
    ]
    assert read[0] == read[1]
    tokenizer = bertjax.load_model("runs/marked").tokenizer
    ids, _ = tokenizer.encode_batch(texts)
    assert ids.tolist() == [i for row in read[0] for i in row[1:-1]]


def test_a_mistake_leaves_no_run_behind(library):
    config = bertjax.load_config("finetune.py").replace(init_from="foreign")
    mistakes = {
        "finetune.tasks: found none, expected": {"tasks": ()},
        "finetune.tasks: found good:nothing=": {"tasks": ("good:nothing=tasks/good",)},
        "finetune.metric: found f2, for good, expected one of accuracy,": {"metric": ("f2",)},
        "finetune.metric: found f1:ye, for good, expected a class of": {"metric": ("f1:ye",)},
        "tasks/nowhere: found no such folder": {"tasks": ("good:classification=tasks/nowhere",)},
    }
    for message, change in mistakes.items():
        with pytest.raises(UserError, match=message):
            bertjax.finetune(config.replace(finetune=change), "runs/mistake")
    with pytest.raises(UserError, match="train.steps: found 7, expected finetune.epochs"):
        bertjax.finetune(config.replace(train={"steps": 7}), "runs/mistake")
    assert not (library / "runs" / "mistake").exists()


@pytest.mark.parametrize("source", ["runs/tiny", "foreign"])
def test_a_model_of_other_shapes_leaves_no_run_behind(library, source):
    config = bertjax.load_config("finetune.py").replace(init_from=source, model={"vocab_size": 130})
    with pytest.raises(
        UserError, match=r"params/embeddings/word/embedding: found shape \[120, 32\]"
    ):
        bertjax.finetune(config, "runs/mistake", overrides=["model.vocab_size"])
    grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3,), epochs=(1.0,))
    with pytest.raises(UserError, match="found shape"):
        bertjax.sweep(config, "runs/mistake", grid, overrides=["model.vocab_size"])
    if source == "runs/tiny":
        config = bertjax.load_config("tiny.py").replace(init_from=source, model={"hidden_size": 64})
        with pytest.raises(UserError, match="found shape"):
            bertjax.train(config, "runs/mistake")
    assert not (library / "runs" / "mistake").exists()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["model.hidden_dropout"],
            "'model.hidden_dropout', .* nearest is model.hidden_dropout_prob",
        ),
        (["hidden_dropout_prob"], "found 'hidden_dropout_prob', expected dotted names of fields"),
        ("model.vocab_size", "overrides: found '.', expected dotted names"),
    ],
)
def test_an_override_that_is_no_field_is_named(library, overrides, message):
    with pytest.raises(UserError, match=message):
        bertjax.finetune(bertjax.load_config("finetune.py"), "runs/mistake", overrides=overrides)
    assert not (library / "runs" / "mistake").exists()


def test_a_sweep_returns_its_cells_and_evaluates_the_best(library):
    grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3, 2e-3), epochs=(1.0,))
    lines = []
    config = bertjax.load_config("finetune.py")
    result = bertjax.sweep(config, "runs/sweep", grid, on_run=lines.append)
    assert [line.partition(":")[0] for line in lines] == ["1 of 2", "2 of 2"]
    scores = [cell.metric for cell in result.cells]
    assert result.best.metrics["score"] == pytest.approx(max(scores))
    assert len(result.table.splitlines()) == 4
    assert result.table.startswith("score: accuracy\n")


def test_a_model_that_answers_the_same_for_everything_says_so_at_the_end(library):
    write_splits(library / "tasks" / "same", has_good, train=24, validation=16)
    changes = {"tasks": ("same:classification=tasks/same",), "metric": ("f1:yes", "recall_macro")}
    # Too small a rate to learn anything.
    config = bertjax.load_config("finetune.py").replace(
        optimizer={"peak_learning_rate": 1e-9}, finetune=changes
    )
    result = bertjax.finetune(config, "runs/same")
    lines = (library / "runs" / "same" / "log.txt").read_text()
    (evaluation,) = json.loads((library / "runs" / "same" / "evaluation.json").read_text())[
        "splits"
    ]
    answer = evaluation["constant_answer"]
    assert f"same: the model gives the same answer, {answer}, for all 16 validation" in lines
    assert "which one answer for all validation examples gets: the run has failed" in lines
    assert "same: scores of the classes\n" in lines
    assert list(result.metrics)[:3] == ["f1:yes", "recall_macro", "accuracy"]
    assert result.metrics["recall_macro"] == 0.5
    assert f"all of them answered the same: {answer}" in result.report.read_text()
    # A finished run may be evaluated by other metrics.
    other = bertjax.saved_config("runs/same").replace(finetune={"metric": ("f1_weighted",)})
    assert load_finetuned("runs/same", other).objective.by_name["same"].metric == "f1_weighted"
