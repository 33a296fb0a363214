from etils import epath

from bertjax.cli.main import main
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
