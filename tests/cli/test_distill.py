"""The verb `distill`: its own mistakes, and the two kinds of text that it takes."""

import contextlib
import json

import pytest
from etils import epath

import bertjax
from bertjax.cli.main import main
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.finetuning.load import load_finetuned
from bertjax.training.saved_model import load_model, save_model
from tests.tasks.tiny import TOKENIZER
from tests.tiny_library import write_library
from tests.training.distillation.models import random_params

SHORT = ["--train.batch-size", "8", "--optimizer.warmup-steps", "0"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with text, a task, and a teacher of random parameters, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py")
        save_model("runs/teacher", config, random_params(config.model, 0), TOKENIZER, {})
        yield folder


@pytest.mark.slow
def test_a_student_of_text_and_then_of_a_task_have_half_the_layers(library, capsys):
    """The student of text starts that of the task, which is evaluated and exported."""
    bertjax.prepare(bertjax.load_config("tiny.py"))
    bertjax.train(bertjax.load_config("tiny.py"), "runs/tiny")
    bertjax.finetune(bertjax.load_config("finetune.py"), "runs/good")
    words = ["distill", "tiny.py", "--teacher", "runs/tiny", "--run-dir", "runs/student"]
    words += ["--distill.cosine-weight", "1", "--seconds", "0"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "cosine_loss: " in printed
    card = json.loads((library / "runs" / "student" / "card.json").read_text())
    assert card["after"]["figure"]["value"] == pytest.approx(
        bertjax.evaluate("runs/student").metrics["mlm_loss"], rel=1e-5
    )
    assert card["before"]["figure"]["value"] == pytest.approx(
        bertjax.evaluate("runs/tiny").metrics["mlm_loss"], rel=1e-5
    )
    assert "1 layers of width 32." in (library / "runs" / "student" / "README.md").read_text()
    assert "\n".join(card["table"]) in printed
    assert load_model("runs/student").config.model.num_hidden_layers == 1
    task = ["--finetune.tasks", "good:classification=tasks/good", "--finetune.max-seq-length", "16"]
    words = ["distill", "distill/task", "--teacher", "runs/good", "--init-from", "runs/student"]
    more = [
        "--finetune.length-buckets",
        "16",
        "--finetune.epochs",
        "1",
        "--run-dir",
        "runs/of_task",
    ]
    more += ["--seconds", "0"]
    assert main([*words, *task, *more, *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "accuracy: " in printed
    # The same command again trains nothing and measures nothing.
    card = library / "runs" / "of_task" / "card.json"
    written = card.stat().st_mtime_ns
    assert main([*words, *task, *more, *SHORT]) == 0
    assert capsys.readouterr().out == printed
    assert card.stat().st_mtime_ns == written
    assert load_finetuned("runs/of_task").config.model.num_hidden_layers == 1
    assert main(["evaluate", "runs/of_task"]) == 0
    assert main(["export", "runs/of_task", "--to", "exported"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--teacher: found nothing, expected the run or checkpoint folder of a teacher"),
        (["--teacher", "runs/nowhere"], "runs/nowhere: found no checkpoint, expected a run folder"),
        (
            ["--teacher", "runs/teacher", "--distill.teacher-layers", "3"],
            "distill.teacher_layers: found 3, expected at most 2, the teacher's layers",
        ),
        (
            ["--teacher", "runs/teacher", "--distill.temperature", "0"],
            "distill.temperature: found 0.0, expected a number above 0",
        ),
        (
            [
                "--teacher",
                "runs/teacher",
                "--distill.objective-weight=0",
                "--distill.soft-weight=0",
            ],
            "distill: found no weight above 0, expected one or more terms to learn",
        ),
        (
            ["--teacher", "runs/teacher", "--max-loss", "5"],
            "--max-loss: found '5', expected a percentage",
        ),
        (
            ["--teacher", "runs/teacher", "--max-loss", "5%", "--measure", "False"],
            "--max-loss: found 5%, expected --measure True",
        ),
        (
            ["--teacher", "runs/teacher", "--sts", "runs/none"],
            "runs/none: cannot be read as a file of rated pairs (No such file or directory)",
        ),
        (
            ["--teacher", "runs/teacher", "--task", "good"],
            "--task: found good, expected none: there are no tasks",
        ),
    ],
)
def test_a_mistake_is_one_line_with_status_2_and_leaves_nothing(library, words, message, capsys):
    assert main(["distill", "tiny.py", "--run-dir", "runs/mistake", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (library / "runs" / "mistake").exists()


def test_a_teacher_of_another_program_is_to_be_imported_first(library, capsys):
    (library / "strange").mkdir()
    for name in ("config.json", "model.safetensors"):
        (library / "strange" / name).write_text("{}")
    assert main(["distill", "tiny.py", "--run-dir", "runs/mistake", "--teacher", "strange"]) == 2
    assert "expected a run: `bertjax import` makes one of it" in capsys.readouterr().err


def test_a_teacher_is_refused_where_a_step_is_estimated(library, capsys):
    assert main(["compile", "tiny.py", "--distill.teacher", "runs/teacher"]) == 2
    assert "expected none: the estimate is of a step without a teacher" in capsys.readouterr().err


def test_text_is_prepared_with_the_tokenizer_of_the_teacher(library):
    words = ["prepare", "tiny.py", "--distill.teacher", "runs/teacher"]
    assert main([*words, "--data.prepared-dir", "prepared/of_teacher"]) == 0
    own = load_tokenizer(epath.Path("prepared/of_teacher/tokenizer"))
    assert own.fingerprint == TOKENIZER.fingerprint
