"""Latency is measured by turns, and for the shapes that a model can compute."""

import numpy as np

from bertjax.compression.latency import (
    CALLS_A_TURN,
    FEWEST_CALLS,
    MOST_CALLS,
    Timed,
    cells,
    measure_latency,
    random_rows,
)


class Model:
    """A model that takes a known time; it notes its turns."""

    def __init__(self, name, milliseconds, turns):
        self.name, self.milliseconds, self.turns = name, milliseconds, turns

    def seconds(self, inputs, outputs, calls):
        self.turns.append((self.name, inputs["input_ids"].shape, calls))
        assert outputs == ["logits"]
        return np.full(calls, self.milliseconds / 1000)


def test_models_take_turns_and_each_shape_has_its_median():
    turns = []
    models = {
        name: Timed(Model(name, time, turns), ["logits"]) for name, time in (("a", 4.0), ("b", 2.0))
    }
    found = measure_latency(models, 50, 128, seconds=0.0)
    assert list(found) == ["a", "b"]
    shapes = [(each.batch_size, each.length) for each in found["a"]]
    assert shapes == [(1, 32), (1, 128), (32, 32), (32, 128)]
    assert {each.median_ms for each in found["a"]} == {4.0}
    assert {each.p99_ms for each in found["b"]} == {2.0}
    assert {each.calls for each in found["b"]} == {FEWEST_CALLS}
    names = [name for name, _, calls in turns if calls == CALLS_A_TURN]
    assert names == ["a", "b"] * (len(names) // 2)
    slow = measure_latency(models, 50, 32, seconds=60.0)
    assert {each.calls for each in slow["a"]} == {MOST_CALLS}


def test_lengths_are_those_that_the_model_has_positions_for():
    assert cells(512)[:3] == [(1, 32), (1, 128), (1, 512)]
    assert cells(16) == [(1, 16), (32, 16)]


def test_rows_are_full_and_the_same_each_time():
    rows = random_rows(3, 7, 11)
    assert rows["input_ids"].shape == (3, 7)
    assert rows["input_ids"].max() < 11
    assert rows["input_mask"].all()
    np.testing.assert_array_equal(rows["input_ids"], random_rows(3, 7, 11)["input_ids"])
