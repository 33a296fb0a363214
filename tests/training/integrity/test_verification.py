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
