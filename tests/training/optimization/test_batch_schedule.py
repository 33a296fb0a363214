import dataclasses
import itertools
import json
import signal

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, FinetuneConfig, TrainConfig
from bertjax.errors import UserError
from bertjax.training import step as steps
from bertjax.training.batch_source import BatchSource
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from bertjax.training.optimization.batch_schedule import NOISE, SIGNAL, BatchSchedule
from tests.factory import random_batch, small_config
from tests.training.runs import params_of

ADAPTIVE = TrainConfig(
    batch_size=4,
    gradient_accumulation_steps=2,
    batch_size_schedule="adaptive",
    max_batch_size=32,
    batch_size_steps=5,
)


def taken(schedule, steps):
    """Return the batches of each update, from the first step to the last."""
    taken_batches, step = [], 0
    while step < steps:
        taken_batches.append(schedule.batches_at(step))
        step += taken_batches[-1]
    return taken_batches


@given(
    steps=st.integers(1, 300),
    doublings=st.integers(1, 5),
    within=st.integers(1, 400),
    batch_size=st.integers(1, 9),
)
def test_a_ramp_doubles_by_and_by_and_takes_every_batch_once(steps, doublings, within, batch_size):
    config = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        batch_size_schedule="ramp",
        max_batch_size=batch_size * 2**doublings,
        batch_size_steps=within,
    )
    taken_batches = taken(BatchSchedule(config), steps)
    assert sum(taken_batches) == steps
    assert set(taken_batches) <= {2**n for n in range(doublings + 1)}
    # From the step that is named it is the largest, as long as so many batches are left.
    beginnings = np.cumsum([0, *taken_batches[:-1]])
    late = [
        n
        for n, begin in zip(taken_batches, beginnings, strict=True)
        if within <= begin <= steps - 2**doublings
    ]
    assert set(late) <= {2**doublings}


def test_a_batch_that_is_constant_stays_one():
    assert taken(BatchSchedule(TrainConfig(steps=7)), 7) == [1] * 7


def test_a_constant_batch_does_not_begin_with_the_size_that_an_earlier_phase_had_grown_to():
    grown = {"times": 8, "noise": 0.0, "signal": 0.0}
    assert taken(BatchSchedule(TrainConfig(steps=7), grown, begin=3), 7) == [1] * 7


def measured(noise, signal):
    return {NOISE: noise, SIGNAL: signal}


def test_the_batch_doubles_where_the_noise_scale_says_so_and_never_shrinks():
    schedule = BatchSchedule(ADAPTIVE)
    assert not schedule.grow()  # nothing is known
    schedule.observe([measured(70.0, 10.0)])
    assert not schedule.grow()  # 7 rows, and twice the batch are 8
    schedule.observe([measured(100.0, 1.0)] * 200)
    assert schedule.noise_scale == pytest.approx(100, rel=0.3)
    assert [schedule.grow() for _ in range(4)] == [True, True, True, False]  # 32 is the largest
    assert schedule.batch_size(0) == 32
    schedule.observe([measured(1.0, 10.0)] * 2000)
    assert not schedule.grow()
    assert schedule.batch_size(0) == 32


def test_an_update_that_was_skipped_tells_nothing_of_the_noise():
    schedule = BatchSchedule(ADAPTIVE)
    schedule.observe([measured(70.0, 10.0)])
    before = schedule.state()
    schedule.observe([measured(float("nan"), 1.0), measured(1.0, float("inf")), {"loss": 1.0}])
    assert schedule.state() == before


@given(
    rows=st.lists(st.tuples(st.floats(-10, 1e3), st.floats(-1, 10)), min_size=1, max_size=30),
    cut=st.integers(0, 30),
)
def test_a_run_that_goes_on_from_a_checkpoint_decides_as_if_it_had_not_stopped(rows, cut):
    whole, part = BatchSchedule(ADAPTIVE), BatchSchedule(ADAPTIVE)
    for number, measurement in enumerate(rows):
        if number == cut:
            part = BatchSchedule(ADAPTIVE, json.loads(json.dumps(part.state())))
        for schedule in (whole, part):
            schedule.observe([measured(*measurement)])
            schedule.grow()
    assert part.state() == whole.state()


def test_the_estimates_are_those_of_the_gradients_distribution():
    """The means of many estimates are those of the distribution that gradients are drawn from."""
    rng = np.random.default_rng(0)
    gradient, deviation = rng.normal(size=50), 3.0
    config = small_config(train=dataclasses.asdict(ADAPTIVE) | {"steps": 10})
    for batches in (1, 4):
        parts, draws = 2 * batches, 20_000
        rows = ADAPTIVE.batch_size // 2
        of_parts = gradient + deviation / np.sqrt(rows) * rng.normal(size=(draws, parts, 50))
        squares = (of_parts.mean(axis=1) ** 2).sum(-1)
        shares = ((of_parts / parts) ** 2).sum((-1, -2))
        estimates = steps.gradient_noise(config, batches, squares, shares)
        assert np.mean(estimates[NOISE]) == pytest.approx(50 * deviation**2, rel=0.02)
        assert np.mean(estimates[SIGNAL]) == pytest.approx((gradient**2).sum(), rel=0.05)


def config_of(schedule, **train_changes):
    sizes = {
        "batch_size": 8,
        "max_batch_size": 32,
        "batch_size_schedule": schedule,
        "batch_size_steps": 4,
    }
    if schedule == "adaptive":
        sizes["gradient_accumulation_steps"] = 2
    sizes |= {"steps": 23, "eval_every_steps": 50, "save_every_steps": 9}
    return small_config(train=sizes | train_changes, mesh={"data": 4, "tensor": 2})


def batch_source(stop=None):
    def batches(start, rows):
        for step in itertools.count(start):
            if stop:
                stop(step)
            batch = random_batch(np.random.default_rng(1000 + step), 8)
            yield {name: values[rows] for name, values in batch.items()}

    return BatchSource(train=batches)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["ramp", "adaptive"])
def test_a_stopped_run_with_a_growing_batch_ends_as_the_undisturbed_one(
    schedule, tmp_path, monkeypatch
):
    config, undisturbed, stopped = (
        config_of(schedule),
        epath.Path(tmp_path) / "one",
        epath.Path(tmp_path) / "two",
    )
    monkeypatch.setattr(
        BatchSchedule, "noise_scale", property(lambda self: 1e9 if self.state()["noise"] else 0.0)
    )
    assert train(config, undisturbed, batch_source()).step == 23
    rows = [row for row in read_entries(undisturbed) if row["split"] == "train"]
    grown = [row["batch_size"] for row in rows]
    assert grown[0] == 8
    assert max(grown) == 32
    assert sum(grown) == 23 * 8

    def stop(step):
        if step == 14:
            signal.raise_signal(signal.SIGTERM)

    assert train(config, stopped, batch_source(stop)).stopped
    assert train(config, stopped, batch_source()).step == 23
    again = [row for row in read_entries(stopped) if row["split"] == "train"]
    assert [(row["step"], row["loss"], row["batch_size"]) for row in again] == [
        (row["step"], row["loss"], row["batch_size"]) for row in rows
    ]
    for one, two in zip(
        jax.tree.leaves(params_of(undisturbed, config)),
        jax.tree.leaves(params_of(stopped, config)),
        strict=True,
    ):
        assert np.array_equal(one, two)


def test_several_batches_in_one_update_have_the_gradient_of_all_their_rows():
    rng = np.random.default_rng(0)
    batch = random_batch(rng, 32)
    small = config_of("ramp", batch_size=8)
    large = small_config(train={"batch_size": 32})
    params = steps.init_state(large).params
    many, sums = jax.jit(lambda *given: steps.gradients(small, *given, None)[:2])(params, batch)
    one, expected = jax.jit(lambda *given: steps.gradients(large, *given, None)[:2])(params, batch)
    for a, b in zip(jax.tree.leaves((many, sums)), jax.tree.leaves((one, expected)), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)
    state, metrics = jax.jit(lambda *given: steps.train_step(small, *given))(
        steps.init_state(small), batch
    )
    assert (int(state.step), float(metrics["skipped"])) == (4, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size_schedule": "ramp"}, "train.max_batch_size"),
        (
            {"batch_size_schedule": "ramp", "batch_size": 8, "max_batch_size": 8},
            "train.max_batch_size",
        ),
        (
            {"batch_size_schedule": "ramp", "batch_size": 8, "max_batch_size": 24},
            "train.max_batch_size",
        ),
        (
            {"batch_size_schedule": "ramp", "batch_size": 8, "max_batch_size": 36},
            "train.max_batch_size",
        ),
        (
            {"batch_size_schedule": "adaptive", "max_batch_size": 512},
            "train.gradient_accumulation_steps",
        ),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**changes)


def test_fine_tuning_has_one_batch_size():
    growing = TrainConfig(batch_size_schedule="ramp", max_batch_size=512)
    with pytest.raises(UserError, match="batch_size_schedule"):
        Config(train=growing, finetune=FinetuneConfig(tasks=("rte=data",)))
