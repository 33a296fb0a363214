"""`finetune` and `sweep` as a program calls them."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest

import bertjax
from bertjax.errors import UserError
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
        "tasks/nowhere: found no such folder": {"tasks": ("good:classification=tasks/nowhere",)},
    }
    for message, change in mistakes.items():
        with pytest.raises(UserError, match=message):
            bertjax.finetune(config.replace(finetune=change), "runs/mistake")
    with pytest.raises(UserError, match="train.steps: found 7, expected finetune.epochs"):
        bertjax.finetune(config.replace(train={"steps": 7}), "runs/mistake")
    assert not (library / "runs" / "mistake").exists()


def test_a_sweep_returns_its_cells_and_evaluates_the_best(library):
    grid = bertjax.Grid(batch_sizes=(8,), learning_rates=(1e-3, 2e-3), epochs=(1.0,))
    lines = []
    config = bertjax.load_config("finetune.py")
    result = bertjax.sweep(config, "runs/sweep", grid, on_run=lines.append)
    assert [line.partition(":")[0] for line in lines] == ["1 of 2", "2 of 2"]
    scores = [cell.metric for cell in result.cells]
    assert result.best.metrics["score"] == pytest.approx(max(scores))
    assert len(result.table.splitlines()) == 3
