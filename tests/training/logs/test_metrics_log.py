import json
import logging

import pytest
from etils import epath

from bertjax.errors import UserError
from bertjax.training.logs.metrics_log import MetricsLog, read_entries


def train_entry(step, loss=1.0):
    return {"step": step, "split": "train", "mlm_loss": loss, "tokens": 3.0}


def heldout_entry(step, loss):
    return {"step": step, "split": "validation", "mlm_loss": loss}


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path)


def test_each_step_stands_once_after_a_restart_from_an_earlier_one(run):
    log = MetricsLog(run, 0)
    log.write([train_entry(step) for step in range(1, 8)])
    log.close()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "split": "tr')  # a kill in the middle of a line
    again = MetricsLog(run, 4)
    again.write([train_entry(step, 2.0) for step in range(5, 10)])
    again.close()
    assert [(row["step"], row["mlm_loss"]) for row in read_entries(run)] == [
        (i, 1.0 if i < 5 else 2.0) for i in range(1, 10)
    ]


def test_what_is_not_finite_is_written_as_null(run):
    log = MetricsLog(run, 0)
    log.write([train_entry(1, float("nan")), train_entry(2, float("inf"))])
    log.close()
    text = (run / "metrics.jsonl").read_text()
    assert [json.loads(line)["mlm_loss"] for line in text.splitlines()] == [None, None]


def test_tensorboard_reads_the_same_numbers(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(run, 0)
    log.write([train_entry(step, step / 2) for step in range(1, 4)])
    log.close()
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/mlm_loss")] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
    ]


def evaluations(run, train_losses, heldout_losses, restart_after=None):
    """Return True where overfitting is seen after the last of these evaluations.

    There is an evaluation after every training loss.
    """
    log = MetricsLog(run, 0)
    for step, (train, heldout) in enumerate(zip(train_losses, heldout_losses, strict=True), 1):
        log.write([train_entry(step, train), heldout_entry(step, heldout)])
        if step == restart_after:
            log.close()
            log = MetricsLog(run, step)
    seen = log.overfitting(3)
    log.close()
    return seen


@pytest.mark.parametrize("train,heldout,expected", [
    ([5, 4, 3, 2], [5, 5.1, 5.2, 5.3], True),
    ([5, 4, 3, 2], [5, 4.9, 5.2, 5.3], False),
    ([5, 4, 4.5, 2], [5, 5.1, 5.2, 5.3], False),
    ([4, 3, 2], [5.1, 5.2, 5.3], False),
    ([9, 5, 4, 3, 2], [4, 5, 5.1, 5.2, 5.3], True),
])  # fmt: skip
def test_overfitting_is_rising_held_out_loss_while_training_loss_falls(
    run, train, heldout, expected
):
    assert evaluations(run, train, heldout) == expected


def test_the_watch_for_overfitting_outlives_a_restart(run):
    assert evaluations(run, [5, 4, 3, 2], [5, 5.1, 5.2, 5.3], restart_after=2)


def test_a_log_that_does_not_write_leaves_nothing(run):
    log = MetricsLog(run, 0, writes=False)
    log.write([train_entry(1)])
    assert not log.overfitting(1)
    log.close()
    assert list(run.iterdir()) == []


def refuse(path):
    """Put a folder in the place of a file: to root too that is no file to write to."""
    path.rename(path.with_name("before"))
    path.mkdir()


def allow(path):
    path.rmdir()
    path.with_name("before").rename(path)


def test_decisions_see_what_cannot_be_written_and_it_is_written_later(run, caplog):
    log = MetricsLog(run, 0)
    log.write([train_entry(1, 5.0), heldout_entry(1, 5.0)])
    refuse(run / "metrics.jsonl")
    for step in (2, 3, 4):
        log.write([train_entry(step, 5.0 - step), heldout_entry(step, 5.0 + step)])
    assert log.overfitting(3)
    assert [entry["step"] for entry in log.evaluations] == [1, 2, 3, 4]
    assert len([r for r in caplog.records if "metrics.jsonl: cannot be" in r.getMessage()]) == 1
    allow(run / "metrics.jsonl")
    log.close()
    assert [row["step"] for row in read_entries(run)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_each_step_stands_once_after_a_restart_that_could_not_cut_the_file(
    run, known_unfinished_names
):
    first = MetricsLog(run, 0)
    first.write([train_entry(step) for step in range(1, 8)])
    first.close()
    # In the place of the file that `write_whole` writes to.
    (run / "metrics.jsonl.unfinished" / "full").mkdir(parents=True)
    again = MetricsLog(run, 4)
    again.write([train_entry(5, 2.0)])
    assert [row["mlm_loss"] for row in read_entries(run)] == [1.0] * 7
    (run / "metrics.jsonl.unfinished").rmtree()
    again.write([train_entry(6, 2.0)])
    assert [(row["step"], row["mlm_loss"]) for row in read_entries(run)] == [
        (step, 1.0 if step < 5 else 2.0) for step in range(1, 7)
    ]


def test_a_restart_says_which_entries_are_missing(run, caplog):
    caplog.set_level(logging.INFO)
    first = MetricsLog(run, 0)
    first.write([train_entry(step) for step in range(1, 5)])
    MetricsLog(run, 4)
    assert not caplog.records
    again = MetricsLog(run, 6)
    again.write([train_entry(7)])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "metrics.jsonl: no entries from step 5 to 6, which an" in record.getMessage()
    assert [row["step"] for row in read_entries(run)] == [1, 2, 3, 4, 7]
    # Said at the restart that leaves the gap, and not at later ones.
    MetricsLog(run, 7)
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_read_is_named(run):
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: cannot be read as a run's metrics \(Is a directory\)"
    ):
        MetricsLog(run, 4)


@pytest.mark.parametrize("line,message", [
    (b"{", "found Expecting property name"),
    (b"[" * 100_000, "found maximum recursion depth"),
    (b"\xff\xfe{}", "found 'utf-8' codec"),
    (b"[1]", "found a list of 1"),
    (b"{}", "found a dict of 0, expected an object with step, split and numbers"),
    (b'{"step": "3", "split": "train"}', "step: found '3'"),
    (b'{"step": -1, "split": "train"}', "step: found -1"),
    (b'{"step": 1' + b"0" * 400 + b', "split": "train"}', "step: found an integer of"),
    (b'{"step": 3, "split": null}', "split: found None"),
    (b'{"step": 3, "split": "train", "loss": [1]}', "loss: found a list of 1"),
    (b'{"step": 3, "split": "train", "loss": true}', "loss: found True"),
])  # fmt: skip
def test_a_line_that_no_run_writes_is_named(run, line, message):
    (run / "metrics.jsonl").write_bytes(b'{"step": 1, "split": "train"}\n' + line + b"\n")
    with pytest.raises(UserError) as refused:
        read_entries(run)
    assert "metrics.jsonl: line 2" in str(refused.value)
    assert message in str(refused.value)


def test_scores_before_a_step_do_not_count_for_an_early_end(run):
    log = MetricsLog(run, 0, writes=True)
    scores = {10: 0.9, 20: 0.8, 30: 0.7, 40: 0.75, 50: 0.7}
    for step, score in scores.items():
        log.write([{"step": step, "split": "validation", "score": score}])
        # 0.9 is of a model that is denser than was asked for: from step 30 on 0.75 is the best.
        assert log.stalled(1, since=30) == (step == 50), step
        assert log.stalled(1) == (step in (20, 30, 40, 50))
    log.close()
