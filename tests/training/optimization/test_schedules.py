import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import OptimizerConfig
from bertjax.errors import UserError
from bertjax.training.optimization.schedules import make_schedule


def rate(step, steps=100, **changes):
    return float(
        make_schedule(
            OptimizerConfig(**({"peak_learning_rate": 2.0, "warmup_steps": 10} | changes)), steps
        )(step)
    )


@given(
    schedule=st.sampled_from(["linear", "cosine", "constant", "inverse_sqrt"]),
    step=st.integers(0, 10),
)
def test_warmup_is_linear_from_zero_to_the_peak(schedule, step):
    assert rate(step, schedule=schedule) == pytest.approx(2.0 * step / 10, rel=1e-6)


@given(step=st.integers(10, 120))
def test_each_shape_follows_its_formula_after_the_warmup(step):
    done = min((step - 10) / 90, 1)
    expected = {
        "linear": 2.0 + (0.2 - 2.0) * done,
        "cosine": 0.2 + (2.0 - 0.2) * (1 + math.cos(math.pi * done)) / 2,
        "sqrt": 0.2 + (2.0 - 0.2) * (1 - math.sqrt(done)),
        "constant": 2.0,
        "inverse_sqrt": 2.0 * math.sqrt(10 / step),
        "step": 2.0 * 0.5 ** (step // 30),
        "multistep": 2.0 * 0.5 ** sum(step >= m for m in (20, 50)),
    }
    options = {
        "end_learning_rate": 0.2,
        "decay_steps": 30,
        "milestones": (20, 50),
        "decay_factor": 0.5,
    }
    for schedule, value in expected.items():
        assert rate(step, schedule=schedule, **options) == pytest.approx(
            value, rel=1e-5, abs=1e-6
        ), schedule


def test_without_warmup_the_first_step_has_the_peak():
    assert rate(0, warmup_steps=0) == 2.0
    assert rate(100, warmup_steps=0) == 0.0


@given(step=st.integers(0, 250), schedule=st.sampled_from(["linear", "cosine"]))
def test_each_restart_is_a_run_of_its_own_that_rises_from_where_the_rate_was(step, schedule):
    options = {"schedule": schedule, "end_learning_rate": 0.5}
    actual = rate(step, 250, restarts=(100, 150), **options)
    if step < 100:
        expected = rate(step, 100, **options)
    else:
        begin, steps = (100, 50) if step < 150 else (150, 100)
        since = step - begin
        expected = rate(since, steps, **options)
        if since < 10:
            expected = 0.5 + (2.0 - 0.5) * since / 10
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("restarts", [(10,), (50, 60), (60, 50), (-20,)])
def test_restarts_without_room_for_a_warmup_are_refused(restarts):
    with pytest.raises(UserError, match=r"optimizer\.restarts: found .*, expected ascending"):
        OptimizerConfig(warmup_steps=10, restarts=restarts)


def test_restarts_of_a_schedule_that_has_no_end_are_refused():
    with pytest.raises(UserError, match=r"optimizer\.restarts: .*constant has no restarts"):
        OptimizerConfig(warmup_steps=10, schedule="constant", restarts=(50,))


def test_warmup_stable_decay_by_hand():
    """Ten steps of warmup, then the peak; the last 40 of 100 steps fall from 2.0 to 0.4."""
    options = {"schedule": "wsd", "decay_steps": 40, "end_learning_rate": 0.4}
    quarter = {"linear": 1.6, "cosine": 0.4 + 0.8 * (1 + math.sqrt(0.5)), "sqrt": 1.2}
    for shape, at_a_quarter in quarter.items():
        rates = [rate(s, decay_shape=shape, **options) for s in (5, 10, 59, 60, 70, 100, 500)]
        expected = [1.0, 2.0, 2.0, 2.0, at_a_quarter, 0.4, 0.4]
        assert rates == pytest.approx(expected, rel=1e-6), shape


def test_a_schedule_of_fewer_steps_than_the_run_stays_at_its_end():
    for schedule in ("linear", "cosine", "sqrt"):
        options = {"schedule": schedule, "end_learning_rate": 0.5}
        assert rate(30, 60, **options) == rate(30, 100, schedule_steps=60, **options)
        assert rate(80, 100, schedule_steps=60, **options) == pytest.approx(0.5)


@pytest.mark.parametrize("changes,message", [
    ({"schedule": "wsd"}, "optimizer.decay_steps: found 0, expected a number above 0"),
    ({"decay_tokens": 5}, "optimizer.decay_tokens: found 5, expected 0, for schedule linear"),
    ({"schedule_steps": -5}, "optimizer.schedule_steps: found -5, expected 0 or more"),
    ({"schedule": "wsd", "decay_steps": 5, "restarts": (20_000,)}, "restarts: .*wsd has no restarts"),
    ({"restarts": (20_000,), "schedule_steps": 5}, "restarts: .*none beside schedule_steps or"),
    ({"warmup_tokens": -1}, "optimizer.warmup_tokens: found -1, expected 0 or more"),
])  # fmt: skip
def test_lengths_that_a_schedule_does_not_have_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**changes)


def test_numbers_of_tokens_may_be_beyond_int32():
    tokens = 50 * 10**9
    assert OptimizerConfig(schedule="wsd", decay_tokens=tokens).decay_tokens == tokens
