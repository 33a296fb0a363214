from etils import epath

from bertjax.training.integrity.verification import verified
from tests.training.checkpoints import change_an_array, without_digests


def test_each_checkpoint_of_a_run_is_judged(run):
    assert [(v.folder.name, v.is_whole, v.text) for v in verified(run / "checkpoints")] == [
        ("3", True, "whole"),
        ("4", True, "whole"),
    ]
    change_an_array(run, 3)
    without_digests(run, 4)
    damaged, unchecked = verified(run / "checkpoints")
    assert not damaged.is_whole
    assert damaged.text.startswith("damaged: ")
    assert unchecked.text == "readable; it has no digests to compare with"


def test_a_path_from_the_current_folder_is_verified_as_the_whole_path_is(run, monkeypatch):
    """Orbax reads none of these, which looked like damage."""
    monkeypatch.chdir(run.parent)
    verdicts = list(verified(epath.Path(run.name) / "checkpoints"))
    assert [verdict.is_whole for verdict in verdicts] == [True, True]
