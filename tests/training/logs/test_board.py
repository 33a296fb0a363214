import math

from etils import epath
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bertjax.training.logs.board import Board


def entries(steps, value):
    return [{"step": step, "split": "train", "loss": value + step} for step in steps]


def losses(run):
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def test_steps_that_run_again_hide_those_of_the_earlier_start(tmp_path):
    run = epath.Path(tmp_path)
    for start, end, value in [(0, 8, 0.5), (4, 10, 0.25)]:
        board = Board(run, start)
        board.add(entries(range(start + 1, end + 1), value))
        board.close()
    expected = [(step, step + 0.5) for step in range(1, 5)]
    expected += [(step, step + 0.25) for step in range(5, 11)]
    assert losses(run) == expected


def test_numbers_that_are_not_finite_are_events_too(tmp_path):
    board = Board(epath.Path(tmp_path), 0)
    board.add([{"step": 1, "split": "train", "loss": math.inf, "name": "no number"}])
    assert losses(tmp_path) == [(1, math.inf)]


def test_events_wait_where_they_cannot_be_written(tmp_path):
    """A folder that cannot be made: a file has its name."""
    run = epath.Path(tmp_path)
    (run / "tensorboard").write_text("")
    board = Board(run, 0)
    board.add(entries([1, 2], 0.0))
    (run / "tensorboard").unlink()
    board.add(entries([3], 0.0))
    assert losses(run) == [(1, 1.0), (2, 2.0), (3, 3.0)]
