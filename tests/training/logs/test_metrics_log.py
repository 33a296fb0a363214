import json

import pytest
from etils import epath

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
