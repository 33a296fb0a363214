import pytest

from bertjax.cli import prune
from bertjax.cli.main import main
from bertjax.training.saved_model import load_model
from tests.tasks.tiny import save_start

LAYER = ["--layers", "1", "--measure", "False"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_start(tmp_path_factory.mktemp("runs") / "source")


def test_the_verb_prints_what_it_did(source, tmp_path, capsys):
    assert prune.run([str(source), "--to", str(tmp_path / "to"), *LAYER]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"from: {source}/checkpoints/0",
        "layers: 2 before, 1 now, evenly spaced: 0",
        "export: all formats; in huggingface it is a model of bert",
        f"checkpoint: {tmp_path}/to/checkpoints/0",
    ]
    assert load_model(tmp_path / "to").config.model.num_hidden_layers == 1


@pytest.mark.parametrize(("words", "message"), [
    ([], "bertjax prune: found nothing to do, expected --heads, --mlp or"),
    (["--heads", "1.0"], "--heads: found 1.0, expected a share to prune: 0 or more, and less"),
    (["--heads", "nan"], "--heads: found nan, expected a finite number"),
    (["--mlp", "-0.1"], "--mlp: found -0.1, expected a share"),
    (["--heads", "0.9"], "--heads: found 0.9 of 2, expected a share that leaves at least one"),
    (["--flops", "1"], "--flops: found 1.0, expected a share to prune"),
    (["--flops", "0.3", "--mlp", "0.3"], "--flops: found 0.3, expected no --heads, --mlp or"),
    (["--layers", "3"], "--layers: found 3, expected 1 to 2, the layers of the model"),
    (["--layers", "0,2"], "--layers: found 0,2, expected ascending numbers from 0 to 1"),
    (["--mlp", "0.5", "--multiple", "0"], "--multiple: found 0, expected 1 or more"),
    (["--mlp", "0.5", "--batches", "0"], "--batches: found 0, expected 1 or more"),
    (["--mlp", "0.5", "--seed", "-1"], "--seed: found -1, expected 0 to 2^32 - 1"),
    (["--mlp", "0.5", "--choose-layers", "loss"], "--choose-layers: found loss, expected --layers"),
    (["--mlp", "0.5", "--measure", "False"], "found no prepared data at prepared, expected the re"),
    (["--layers", "1"], "found a model without a head for masked words, expected --sts with"),
    ([*LAYER, "--max-loss", "1%"], "--max-loss: found 1%, expected --measure True"),
    (["--layers", "1", "--max-loss", "1"], "--max-loss: found '1', expected a percentage"),
    (["--layers", "1", "--seconds", "-1"], "--seconds: found -1.0, expected 0 to 3600"),
    (["--mlp", "0.5", "--method", "magnitude"], "--method"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(source, tmp_path, capsys, words, message):
    assert main(["prune", str(source), "--to", str(tmp_path / "to"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_run_and_an_output_are_needed(tmp_path, capsys):
    assert main(["prune", "--heads", "0.5"]) == 2
    assert main(["prune", str(tmp_path), "--heads", "0.5"]) == 2
    assert main(["prune", str(tmp_path), "--to", str(tmp_path / "to"), "--heads", "0.5"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "expected a run or checkpoint folder" in lines[0]
    assert "--to: found nothing, expected a folder for the new run" in lines[1]
    assert "found no checkpoint, expected a run folder" in lines[2]
