import pytest
from etils import epath

from bertjax.training.integrity import damage
from bertjax.training.integrity.damage import DamagedCheckpointError


@pytest.fixture
def checkpoints(tmp_path):
    for step in (2, 10, 4):
        (tmp_path / str(step)).mkdir()
    return epath.Path(tmp_path)


def test_the_message_names_the_checkpoint_before(checkpoints):
    error = DamagedCheckpointError(checkpoints / "10", "no meta")
    assert str(error) == (
        f"{checkpoints}/10: found no meta, expected a whole checkpoint, as it was saved"
        f" (the one before it is {checkpoints}/4)"
    )
    assert str(DamagedCheckpointError(checkpoints / "2", "no meta")).endswith(
        "(there is none before it; the run has 10 too, and may have removed this one meanwhile)"
    )
    # A copy under another name has no step.
    assert "none before it" in str(DamagedCheckpointError(checkpoints / "best", "no meta"))


def test_a_damaged_checkpoint_is_renamed_and_never_overwrites_another(checkpoints, caplog):
    error = DamagedCheckpointError(checkpoints / "10", "no meta")
    damage.set_aside(error, checkpoints, "previous")
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{checkpoints}/10: damaged, found no meta; kept as 10.damaged, and the run goes on from"
        " step 4"
    ]
    (checkpoints / "10").mkdir()
    damage.set_aside(error, checkpoints, "previous")
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["10.damaged", "10.damaged-2", "2", "4"]


@pytest.mark.parametrize("choice,folder", [("refuse", "10"), ("previous", "elsewhere/10")])
def test_nothing_is_renamed_where_the_run_refuses_or_the_checkpoint_is_another_runs(
    checkpoints, choice, folder
):
    (checkpoints / "elsewhere" / "10").mkdir(parents=True)
    before = sorted(checkpoints.iterdir())
    error = DamagedCheckpointError(checkpoints / folder, "no meta")
    with pytest.raises(DamagedCheckpointError):
        damage.set_aside(error, checkpoints, choice)
    assert sorted(checkpoints.iterdir()) == before


def test_a_run_does_not_start_anew_because_its_only_checkpoint_is_damaged(checkpoints):
    for step in (4, 10):
        (checkpoints / str(step)).rmdir()
    with pytest.raises(DamagedCheckpointError, match="none before it"):
        damage.set_aside(DamagedCheckpointError(checkpoints / "2", "x"), checkpoints, "previous")
    assert (checkpoints / "2").exists()


def test_what_one_process_finds_all_raise(checkpoints):
    def read():
        raise DamagedCheckpointError(checkpoints / "4", "no meta")

    with pytest.raises(
        DamagedCheckpointError, match=r"/4: found no meta, .*/2; the run has 10 too, and may"
    ):
        damage.same_everywhere(checkpoints, read)
    damage.same_everywhere(checkpoints, lambda: None)
