import jax
import numpy as np
import pytest

from bertjax.config import Config, DataConfig, OptimizerConfig, TrainConfig
from bertjax.config.phases.resolution import Course, phases_of
from bertjax.training.optimization.plan import (
    Plan,
    learning_rate,
    learning_rates,
    mask_rate,
    plan_of,
)


def config_of(*phases, steps=20, **optimizer):
    return Config(
        phases=phases,
        optimizer=OptimizerConfig(**{"peak_learning_rate": 1.0, "warmup_steps": 4} | optimizer),
        train=TrainConfig(steps=steps, batch_size=2),
    )


def test_rates_of_four_phases_by_hand():
    config = config_of(
        "steps=8",
        "steps=4 train.batch_size=4",
        "steps=4 optimizer.peak_learning_rate=0.5 optimizer.warmup_steps=2",
        "optimizer.schedule=sqrt",
        schedule="constant",
    )
    rates = learning_rates(config, 20)
    expected = [
        *(0, 0.25, 0.5, 0.75, 1, 1, 1, 1),
        *(1, 1, 1, 1),
        # From the rate that the phase before it had, in two steps to its own.
        *(1, 0.75, 0.5, 0.5),
        *(0.5 * (1 - np.sqrt(np.array([0, 0.25, 0.5, 0.75])))),
    ]
    np.testing.assert_allclose(rates, np.array(expected, np.float32), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["step", "multistep", "inverse_sqrt", "wsd"])
def test_rates_of_many_steps_are_those_of_each(schedule):
    config = config_of(schedule=schedule, decay_steps=5, milestones=(7, 12, 13))
    (phase,) = phases_of(config)
    one = learning_rate(phase.config.optimizer, plan_of([phase], phase))
    assert learning_rates(config, 20).tolist() == [float(np.float32(one(s))) for s in range(20)]


def test_a_schedule_that_no_phase_names_is_that_of_a_run_without_phases():
    for schedule in ("linear", "cosine", "sqrt"):
        whole = learning_rates(config_of(schedule=schedule), 20)
        parts = learning_rates(config_of("steps=7", "data.masking=token", schedule=schedule), 20)
        assert np.array_equal(whole, parts)


def test_tokens_give_the_rates_of_the_steps_that_have_them():
    # 256 tokens a step.
    tokens = config_of(schedule="wsd", warmup_tokens=1000, decay_tokens=1280)
    steps = config_of(schedule="wsd", warmup_steps=4, decay_steps=5)
    assert np.array_equal(learning_rates(tokens, 20), learning_rates(steps, 20))


def test_a_plan_can_be_made_while_a_step_is_traced():
    phases = phases_of(config_of("steps=8", "optimizer.schedule=sqrt optimizer.warmup_steps=2"))

    @jax.jit
    def rate(step):
        return learning_rate(phases[1].config.optimizer, plan_of(phases, phases[1]))(step)

    # The linear schedule of 8 steps ends at 0, and the warmup of the second leads on from there.
    assert [float(rate(step)) for step in (8, 9, 10)] == [0.0, 0.5, 1.0]
    assert plan_of(phases, phases[0]) == Plan(Course(0, 8))


@pytest.mark.parametrize("step,rate", [(0, 0.3), (10, 0.3), (15, 0.225), (20, 0.15), (30, 0.15)])
def test_a_mask_rate_that_changes_is_linear_between_its_ends(step, rate):
    data = DataConfig(
        dynamic_masking=True,
        max_predictions_per_seq=40,
        mlm_probability=0.3,
        mlm_probability_to=0.15,
    )
    assert float(mask_rate(data, Course(10, 10), step)) == pytest.approx(rate, rel=1e-6)


def test_a_constant_mask_rate_is_a_plain_number():
    assert mask_rate(DataConfig(), Course(0, 1), 5) == 0.15
