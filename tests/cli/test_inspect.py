from etils import epath

from bertjax.cli.inspect import describe_model
from bertjax.cli.main import main
from tests.factory import SMALL_MODEL
from tests.families.tiny import tiny
from tests.training.checkpoints import change_an_array, random_state, saved


def test_verify_names_the_damaged_checkpoint_of_a_run_and_ends_with_status_2(tmp_path, capsys):
    run = epath.Path(tmp_path) / "run"
    saved(run, [(3, 1.0), (4, 0.5)], make_state=random_state)
    assert main(["inspect", str(run), "--verify"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{run}/checkpoints/3: whole",
        f"{run}/checkpoints/4: whole",
    ]
    change_an_array(run, 3)
    assert main(["inspect", str(run), "--verify"]) == 2
    damaged, whole = capsys.readouterr().out.splitlines()
    assert damaged.startswith(f"{run}/checkpoints/3: damaged: ")
    assert whole == f"{run}/checkpoints/4: whole"


def test_a_model_names_the_parts_that_bert_does_not_have():
    one = describe_model(SMALL_MODEL)
    assert one.startswith("model: 2 layers, width 16, 2 heads, vocabulary 64, length 16")
    assert "\n" not in one
    _, parts = describe_model(tiny("neobert")).splitlines()
    assert parts.startswith("layers: positions rotary, rotary_pairs interleaved, norm_place before")
    assert parts.endswith("hidden_act silu, biases mlm+pooler")
