"""Mistakes on the command line: one line on stderr, exit status 2, never a traceback."""

import dataclasses
import subprocess
import sys

import pytest

from bertjax.cli.arguments import parse, parse_configured, run_name
from bertjax.cli.main import VERBS, main
from bertjax.cli.train import TrainCommand
from bertjax.config import Config, preset_names


def fails(capsys, *words):
    """The one line that `bertjax WORDS` ends with."""
    assert main([str(word) for word in words]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("bertjax: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.quick
@pytest.mark.parametrize("words,expected", [
    (["trian"], f"trian: no such verb, expected one of {', '.join(VERBS)}; the nearest is train"),
    (["train"], "nothing given, expected a configuration file first"),
    (["eval"], "expected a run or checkpoint folder first"),
    (["train", "configs/tiny.py", "--optimizer.peak-learning-rat", "1"],
     "--optimizer.peak-learning-rat: no such option of `bertjax train CONFIG`; the nearest is --optimizer.peak-learning-rate"),
    (["train", "configs/tiny.py", "--train.step", "1"], "the nearest is --train.steps"),
    (["train", "configs/tiny.py", "--run_dirr", "x"], "the nearest is --run-dir"),
    (["train", "configs/tiny.py", "--train.steps", "many"], "--train.steps: invalid literal for int() with base 10: 'many'"),
    (["train", "configs/tiny.py", "--train.steps"], "Missing value for argument '--train.steps'"),
    (["train", "configs/tiny.py", "--optimizer.schedule", "liner"], "invalid choice 'liner'"),
    (["prepare", "configs/tiny.py", "--phase", "2"], "--phase: found 2, expected 0 (all) to 1"),
    (["prepare", "configs/recipes/paper.py", "--phase", "2"], "--phase: found 2, without prepared/paper128/tokenizer, expected the folder of phase 1 before it"),
    (["prepare", "configs/recipes/paper.py", "--output-dir", "x"], "--output-dir: found x, expected --phase beside it: the phases read 2 folders"),
    (["prepare", "configs/tiny.py", "--phases", "steps=5"], "train.steps: found 3000, expected 5, where the last of phases ends"),
    (["train", "configs/tiny.py", "--train.steps", "-5"], "train.steps: found -5, expected a number above 0"),
    (["train", "configs/tiny.py", "--model.hidden-size", "130", "--model.num-attention-heads", "4"],
     "model.hidden_size: found 130, expected a multiple of model.num_attention_heads (4)"),
    (["train", "configs/tiny.py", "--data.max-seq-length", "1024"],
     "data.max_predictions_per_seq: found 10, expected at least 153"),
    (["train", "configs/tiny.py", "--data.max-seq-length", "1024", "--data.max-predictions-per-seq", "160"],
     "expected at most model.max_position_embeddings (128)"),
    (["prepare", "configs/none.py"], "configs/none.py: found no such configuration file or preset"),
    (["fill-mask", "runs/x"], 'found no sentence, expected one or more, like "The [MASK] is empty."'),
    (["fill-mask", "/no/run", "a [MASK]"], "/no/run: found no checkpoint"),
    (["eval", "/no/run"], "/no/run: found no checkpoint"),
    (["import"], "nothing given, expected a model folder first"),
    (["import", "--drop", "classifier", "folder"], "bertjax import: --drop first, expected a model folder before all options"),
    (["train", "--train.steps=3", "tiny"], "train: --train.steps first, expected a configuration file before all options"),
    (["evaluate", "--seed", "1", "run"], "--seed first, expected a run or checkpoint folder before all options"),
    (["import", "bert-base-uncased"], "nothing given, expected --to with the new run's folder first"),
    (["import", "bert-base-uncased", "--to", "/no/run"], "bert-base-uncased: found no such folder, expected a folder with config.json"),
    (["export", "runs/x", "--to", "/no/folder", "--format", "tflite"], "tflite"),
    (["export", "/no/run", "--to", "/no/folder"], "/no/run: found no checkpoint"),
    (["train", "configs/continue.py"], "init_from: found nothing, expected a folder to take the model from"),
    (["train", "configs/continue.py", "--init-from", "/no/run"], "/no/run: found no checkpoint"),
    (["inspect", "/no/folder"], "/no/folder: found no manifest.json"),
    (["train", "configs/tiny.py", "--data.prepared-dir", "/no/folder"], "/no/folder/tokenizer/tokenizer_config.json"),
], ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "")  # fmt: skip
def test_mistakes_are_told_in_one_line(capsys, words, expected):
    assert expected in fails(capsys, *words)


@pytest.mark.parametrize("source,expected", [
    ("x = (", "is no working configuration (SyntaxError"),
    ("x = 1", "found no function get_config"),
    ("def get_config(): return 3", "found get_config() giving int, expected a bertjax Config"),
    ("from bertjax.config import *\ndef get_config(): return TrainConfig(steps=0)", "train.steps: found 0, expected a number above 0"),
    ("def get_config(): 1/0", "(ZeroDivisionError: division by zero)"),
])  # fmt: skip
def test_a_configuration_file_that_does_not_work_is_named(capsys, tmp_path, source, expected):
    path = tmp_path / "mine.py"
    path.write_text(source)
    output = fails(capsys, "train", path)
    assert "mine.py" in output
    assert expected in output


def test_help_names_every_field_with_its_default(capsys):
    def names(config, prefix=""):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from names(value, f"{prefix}{field.name}.")
            else:
                yield f"--{prefix}{field.name}".replace("_", "-")

    with pytest.raises(SystemExit) as stop:
        main(["train", "configs/tiny.py", "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    for name in names(Config()):
        assert name in output, name
    assert "(default: 0.0015)" in output  # of tiny, not of the class


def test_every_field_has_a_meaning():
    """tyro shows the string under a field; one without would show nothing."""
    import ast
    import inspect

    from bertjax import config

    tree = ast.parse(inspect.getsource(config))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and field.target.id not in (
                    "tokenizer", "data", "model", "optimizer", "train", "mesh",
                ):  # fmt: skip
                    assert isinstance(after, ast.Expr), f"{node.name}.{field.target.id}"


def test_the_usage_names_every_verb(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(verb in output for verb in VERBS)


def test_importing_bertjax_is_quick_and_brings_no_tensorflow():
    code = (
        "import sys, time; begin = time.perf_counter(); import bertjax; bertjax.encode, bertjax.pretraining_loss;"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'tensorflow_datasets', 'orbax')];"
        "print(time.perf_counter() - begin)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "words", [["--data.dynamic-masking"], ["--data.dynamic_masking", "True"]], ids=str
)
def test_a_yes_or_no_field_may_stand_alone(words):
    command = TrainCommand(config=Config())
    assert parse("train CONFIG", command, words).config.data.dynamic_masking
    assert parse("train CONFIG", command, [*words, "--seed", "3"]).config.seed == 3


def test_the_fields_that_a_command_line_sets_are_those_of_the_configuration():
    words = ["--run-dir", "runs/a", "--model.vocab-size=99", "--init-from", "b", "--seed", "3"]
    configured = parse_configured("train", TrainCommand, ["tiny", *words])
    assert configured.overrides == {"model.vocab_size", "init_from", "seed"}


@pytest.mark.parametrize(
    "subject, name",
    [
        ("tiny", "tiny"),
        ("modernbert/base", "modernbert_base"),
        ("deberta_v3/base", "deberta_v3_base"),
        ("fast/base", "fast_base"),
        ("base", "base"),
        # One preset, whichever of its names is given.
        ("150m", "ettin_150m"),
        ("paper", "finetune_paper"),
        ("mine/small_one.py", "small_one"),
    ],
)
def test_the_runs_of_two_presets_have_different_names(subject, name):
    assert run_name(subject) == name


def test_the_default_folders_of_all_presets_differ():
    names = [run_name(preset) for preset in preset_names()]
    assert len(set(names)) == len(names)


def test_a_file_with_the_name_of_a_preset_is_named_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modernbert").mkdir()
    (tmp_path / "modernbert" / "base").write_text("")
    assert run_name("modernbert/base") == "base"


def test_the_version_is_printed(capsys):
    import bertjax

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bertjax {bertjax.__version__}\n"
