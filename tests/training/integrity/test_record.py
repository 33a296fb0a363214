import json
import logging

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.training.integrity import record
from bertjax.training.integrity.damage import DamagedCheckpointError
from tests.training.checkpoints import random_state, saved, without_digests


def test_a_changed_digit_in_meta_is_noticed(run):
    path = run / "checkpoints" / "4" / "meta" / "metadata"
    before = record.read_meta(run / "checkpoints" / "4")
    assert before["config"]["model"]["hidden_size"] == 16
    assert record.OWN not in before
    path.write_text(path.read_text().replace('"hidden_size": 16', '"hidden_size": 17'))
    with pytest.raises(
        DamagedCheckpointError,
        match=r"checkpoints/4: found meta/metadata changed, expected a whole checkpoint, as it was"
        r" saved \(the one before it is .*checkpoints/3\)$",
    ):
        record.read_meta(run / "checkpoints" / "4")


def test_a_checkpoint_that_lost_its_digests_is_none_of_an_earlier_version(run):
    folder = run / "checkpoints" / "3"
    meta = folder / "meta" / "metadata"
    values = json.loads(meta.read_text())
    values["own_sha257"] = values.pop(record.OWN)  # one bit of the field's name
    meta.write_text(json.dumps(values))
    with pytest.raises(DamagedCheckpointError, match=r"no digest in its meta.*none before it"):
        record.read_meta(folder)
    folder = run / "checkpoints" / "4"
    (folder / "state" / "digests.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=r"4: found no state/digests.json"):
        record.read_saved_arrays(folder)


def test_a_checkpoint_of_an_earlier_version_is_read_and_this_is_said_once(run, caplog):
    caplog.set_level(logging.INFO, "bertjax")
    without_digests(run, 4)
    folder = run / "checkpoints" / "4"
    for _ in range(2):
        assert record.read_meta(folder)["config"]
        assert record.read_saved_arrays(folder) is None
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{folder}: saved by a version without digests, so its numbers are not checked"
    ]


def test_a_score_that_is_not_the_one_in_meta_is_noticed(run):
    """It decides which checkpoint is kept as the best."""
    path = run / "checkpoints" / "4" / "metrics" / "metrics"
    assert json.loads(path.read_text()) == {"score": -0.5}
    path.write_text('{"score": -0.1}')
    with pytest.raises(DamagedCheckpointError, match="another score in its metrics"):
        record.check_score(run / "checkpoints" / "4")
    path.unlink()
    with pytest.raises(DamagedCheckpointError, match="another score in its metrics"):
        record.check_score(run / "checkpoints" / "4")


def test_a_score_that_is_no_number_is_no_damage(tmp_path):
    run = epath.Path(tmp_path) / "run"
    saved(run, [(3, float("nan"))], make_state=random_state)
    record.check_score(run / "checkpoints" / "3")


def test_values_are_compared_as_json_reads_them():
    """Keys that are numbers are sorted as text when they are read, 10 before 9."""
    written = json.dumps(record.with_own_digest({"a": {9: (1,), 10: 0.1}, "b": float("nan")}))
    read = json.loads(written)
    own = read.pop(record.OWN)
    assert own == record.with_own_digest(read)[record.OWN]


def test_files_that_tell_where_arrays_are_must_be_as_they_were_saved(run):
    folder = run / "checkpoints" / "4"
    assert "params/pooler/kernel" in record.read_saved_arrays(folder)
    path = folder / "state" / "_METADATA"
    path.write_text(path.read_text() + " ")
    with pytest.raises(DamagedCheckpointError, match="found state/_METADATA changed or missing"):
        record.read_saved_arrays(folder)


def test_a_folder_without_meta_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^.*: found no meta, expected a whole checkpoint"):
        record.read_meta(epath.Path(tmp_path))
