import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, OptimizerConfig, TrainConfig
from bertjax.config.phases.kept import marks_of
from bertjax.errors import UserError


def marks(phases=(), **train):
    train = {"steps": 100, "batch_size": 2} | train
    return marks_of(
        Config(phases=phases, optimizer=OptimizerConfig(warmup_steps=5), train=TrainConfig(**train))
    )


def kept(own, steps):
    return [step for step, is_kept in zip(steps, own.kept(steps), strict=True) if is_kept]


def test_every_n_steps_and_a_list_of_them():
    own = marks(keep_every_steps=20, keep_steps=(0, 7))
    assert kept(own, range(0, 101)) == [0, 7, 20, 40, 60, 80, 100]
    # An update of eight batches jumps over the marks.
    assert kept(own, range(0, 101, 8)) == [0, 8, 24, 40, 64, 80]


def test_every_n_tokens_over_phases_of_other_batches():
    # 256 tokens a step, and 512 from step 50 on: 12,800 tokens are 50 steps, then 25.
    own = marks(("steps=50", "train.batch_size=4"), keep_every_tokens=12_800)
    assert kept(own, range(0, 101)) == [50, 75, 100]


def test_a_later_checkpoint_does_not_stand_for_step_0():
    assert kept(marks(keep_steps=(0,)), [5, 10]) == []
    assert not marks().passed(-1, 0)


@given(
    every=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_what_is_kept_stays_kept_when_others_are_removed(every, sizes, seed):
    own = marks(steps=500, keep_every_steps=every)
    steps = list(itertools.accumulate(sizes))
    first = kept(own, steps)
    left = [step for index, step in enumerate(steps) if step in first or (index + seed) % 3]
    assert set(kept(own, left)) == set(first)


@pytest.mark.parametrize("name", ["keep_every_steps", "keep_every_tokens"])
def test_numbers_below_zero_are_refused(name):
    with pytest.raises(UserError, match=f"train.{name}: found -1, expected 0 or more"):
        TrainConfig(**{name: -1})
    with pytest.raises(
        UserError, match="train.keep_steps: found .*-2.*, expected steps, 0 or more"
    ):
        TrainConfig(keep_steps=(5, -2))
