"""How `finetune.metric` is read, and how metrics become scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.metric_table import (
    Metric,
    Scale,
    check_class,
    check_metric,
    chosen_metrics,
    metric_named,
)

TABLE = (Metric("accuracy"), Metric("f1"), Metric("f1", of_class=True))
SPELLINGS = {"sst2": "sst2", "SST-2": "sst2", "mine": "mine"}
pytestmark = pytest.mark.quick


@pytest.mark.parametrize("options,task,expected", [
    ((), "mine", ()),
    (("f1", "accuracy"), "mine", ("f1", "accuracy")),
    (("sst2=f1", "mine=accuracy", "mine=f1:x"), "mine", ("accuracy", "f1:x")),
    (("SST-2=f1", "mine=accuracy"), "sst2", ("f1",)),
    (("f1:mine=x",), "mine", ("f1:mine=x",)),
    (("f1:a=b", "mine=f1:c=d"), "mine", ("f1:a=b", "f1:c=d")),
    (("other=f1",), "mine", ("other=f1",)),
])  # fmt: skip
def test_an_entry_chooses_for_all_tasks_or_for_the_one_before_the_equals_sign(
    options, task, expected
):
    assert chosen_metrics(options, task, SPELLINGS) == expected


def test_a_metric_that_is_chosen_twice_is_refused():
    with pytest.raises(UserError, match=r"^finetune.metric: found f1, f1, for mine, expected each"):
        chosen_metrics(("f1", "mine=f1"), "mine", SPELLINGS)


def test_the_class_is_what_follows_the_first_colon():
    assert metric_named(TABLE, "f1") == TABLE[1]
    assert metric_named(TABLE, "f1:a:b") == TABLE[2]
    assert metric_named(TABLE, "accuracy:a") is None
    check_class("mine", "f1:a:b", ("a:b",))
    check_class("mine", "f1", ())


@pytest.mark.parametrize("text", ["F1", "f2", "accuracy:a", "", "rte=f1"])
def test_a_metric_that_is_not_known_is_answered_with_those_that_are(text):
    with pytest.raises(UserError) as raised:
        check_metric("mine", text, TABLE)
    expected = f"finetune.metric: found {text}, for mine, expected one of accuracy, f1, f1:CLASS"
    assert str(raised.value) == expected


@pytest.mark.parametrize("label", ["", "rar", "Rare"])
def test_a_class_that_is_not_known_is_answered_with_those_that_are(label):
    with pytest.raises(UserError) as raised:
        check_class("mine", f"f1:{label}", ("rare", "usual"))
    message = str(raised.value)
    assert message.startswith(f"finetune.metric: found f1:{label}, for mine, expected a class of")
    assert "rare, usual" in message


def test_of_many_classes_a_message_lists_some_and_the_nearest():
    classes = [f"intent{number}" for number in range(150)]
    with pytest.raises(UserError) as raised:
        check_class("mine", "f1:intent-77", classes)
    message = str(raised.value)
    assert "intent19, ... (150 in all); the nearest is intent" in message
    assert len(message) < 400


@given(st.sampled_from(Scale), st.floats(0, 1), st.floats(0, 1))
def test_a_better_value_has_the_higher_score(scale, low, high):
    low, high = sorted((low, high))
    worse, better = (high, low) if scale is Scale.ERROR else (low, high)
    assert scale.score(worse) <= scale.score(better)


def test_values_in_0_to_100_become_shares_and_others_stay():
    scores = [scale.score(50.0) for scale in (Scale.PERCENT, Scale.POINTS, Scale.SHARE)]
    assert scores == [0.5, 0.5, 50.0]
    assert (Scale.CORRELATION.score(-0.5), Scale.ERROR.score(0.25)) == (-0.5, -0.25)
