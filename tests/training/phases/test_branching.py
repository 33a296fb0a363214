import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, OptimizerConfig, TrainConfig
from bertjax.config.phases.resolution import phases_of, tokens_at
from bertjax.errors import UserError
from bertjax.training.optimization.batch_schedule import BatchSchedule
from bertjax.training.optimization.plan import learning_rates, mask_rate
from bertjax.training.phases.branching import branched

LATER = ["steps=7 data.masking=token", "tokens=1k optimizer.schedule=sqrt"]


def config_of(*phases, steps=40, train=None, data=None, **optimizer):
    return Config(
        phases=phases,
        data=DataConfig(dynamic_masking=True, max_predictions_per_seq=40, **data or {}),
        optimizer=OptimizerConfig(**{"warmup_steps": 6} | optimizer),
        train=TrainConfig(steps=steps, batch_size=2, **train or {}),
    )


def mask_rates(config, steps):
    rates = []
    for phase in phases_of(config):
        for step in range(phase.begin, min(phase.end, steps)):
            rates.append(float(mask_rate(phase.config.data, phase.masks, step)))
    return rates


def updates(config, steps):
    """The steps at which an update begins, of those before `steps`."""
    begins = []
    for phase in phases_of(config):
        step = phase.begin
        schedule = BatchSchedule(phase.config.train, begin=phase.growth.begin, end=phase.end)
        while step < min(phase.end, steps):
            begins.append(step)
            step += schedule.batches_at(step)
    return begins


def same_until(config, new, step):
    assert np.array_equal(learning_rates(config, step), learning_rates(new, step))
    assert mask_rates(config, step) == mask_rates(new, step)
    assert updates(config, step) == updates(new, step)
    assert tokens_at(phases_of(config), step) == tokens_at(phases_of(new), step)


SCHEDULES = [
    {"schedule": schedule} for schedule in ("linear", "cosine", "sqrt", "constant", "inverse_sqrt")
] + [
    {"schedule": "wsd", "decay_steps": 9},
    {"schedule": "wsd", "decay_tokens": 2000, "warmup_tokens": 700},
    {"schedule": "step", "decay_steps": 5},
    {"schedule": "multistep", "milestones": (9, 21)},
]


@given(
    schedule=st.sampled_from(SCHEDULES),
    phases=st.sampled_from([
        (),
        ("steps=11", "train.batch_size=4"),
        ("steps=20", "steps=12 optimizer.schedule=cosine optimizer.warmup_steps=3", "data.masking=token"),
        ("steps=8 data.mlm_probability=0.3 data.mlm_probability_to=0.15", "steps=9 train.batch_size=4", "train.max_batch_size=16 train.batch_size_schedule=ramp train.batch_size_tokens=9000"),
    ]),
    step=st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=6)
def test_what_was_before_a_branch_does_not_depend_on_what_comes(schedule, phases, step):
    config = config_of(*phases, data={"mlm_probability_to": 0.3}, **schedule)
    new = branched(config, step, LATER)
    same_until(config, new, step if step in updates(config, 41) else 0)
    assert np.array_equal(learning_rates(config, step), learning_rates(new, step))
    # And a branch of the branch, in its first new phase.
    again = branched(new, step + 3, LATER)
    assert np.array_equal(learning_rates(new, step + 3), learning_rates(again, step + 3))
    assert mask_rates(new, step + 3) == mask_rates(again, step + 3)
    assert new.train.steps == phases_of(new)[-1].end


def test_the_phases_of_a_branch_are_written_out():
    new = branched(config_of(schedule="cosine"), 25, LATER)
    assert new.phases[0] == "steps=25 optimizer.schedule_steps=40 optimizer.warmup_steps=6"
    assert new.phases[1:] == tuple(LATER)
    assert branched(config_of(schedule="constant"), 0, ["steps=9"]).phases == ("steps=9",)


def test_a_ramp_goes_on_in_a_branch_as_it_was_planned():
    ramp = {"batch_size_schedule": "ramp", "max_batch_size": 8, "batch_size_tokens": 8000}
    config = config_of(train=ramp)
    step = updates(config, 40)[-2]
    new = branched(config, step, ["steps=16"])
    same_until(config, new, step)
    assert "train.batch_size_steps=32" in new.phases[0]


@pytest.mark.parametrize("config,phases,message", [
    (config_of(), [], "phases: found none, expected one phase or more"),
    (config_of(), ["data.masking=token"], "phase 2: train.steps: found .* steps left|phase 2: phases: found no length"),
    (config_of(restarts=(20,)), LATER, "optimizer.restarts: found .*20.*, expected none"),
])  # fmt: skip
def test_branches_that_cannot_be_are_refused(config, phases, message):
    with pytest.raises(UserError, match=message):
        branched(config, 10, phases)
