import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import OptimizerConfig, TrainConfig
from bertjax.config.phases.spans import (
    Span,
    optimizer_in_steps,
    steps_of,
    tokens_of,
    train_in_steps,
)

SPANS = [Span(2, 1000), Span(10, 100)]


@pytest.mark.parametrize(
    "tokens,steps",
    [(0, 0), (1, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3), (2500, 7), (9000, 12)],
)
def test_tokens_are_the_smallest_number_of_steps_that_has_them(tokens, steps):
    assert steps_of(tokens, SPANS) == steps


spans = st.lists(st.builds(Span, st.integers(1, 50), st.integers(1, 999)), min_size=1, max_size=4)


@given(spans=spans, data=st.data())
def test_steps_and_their_tokens_are_each_others_inverse(spans, data):
    steps = data.draw(st.integers(0, sum(span.steps for span in spans)))
    tokens = tokens_of(steps, spans)
    assert steps_of(tokens, spans) == steps
    if steps:
        assert tokens_of(steps - 1, spans) < tokens


def test_a_warmup_is_counted_from_the_beginning_and_a_decay_from_the_end():
    tokens = OptimizerConfig(schedule="wsd", warmup_tokens=2100, decay_tokens=950)
    steps = optimizer_in_steps(tokens, SPANS)
    assert (steps.warmup_steps, steps.decay_steps) == (3, 10)
    assert (steps.warmup_tokens, steps.decay_tokens) == (0, 0)
    plain = OptimizerConfig()
    assert optimizer_in_steps(plain, SPANS) is plain


def test_the_growth_of_a_batch_in_tokens():
    ramp = {"batch_size": 8, "batch_size_schedule": "ramp", "max_batch_size": 32}
    train = train_in_steps(TrainConfig(batch_size_tokens=2300, **ramp), SPANS)
    assert (train.batch_size_steps, train.batch_size_tokens) == (5, 0)
    plain = TrainConfig()
    assert train_in_steps(plain, SPANS) is plain
