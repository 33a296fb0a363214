import pytest

from bertjax.config import Config, FinetuneConfig, TrainConfig
from bertjax.config.optimization.budget import budget_seconds
from bertjax.errors import UserError
from tests.factory import small_config


@pytest.mark.parametrize("text,seconds", [
    ("24h", 86_400), ("90m", 5_400), ("3600s", 3_600), ("0.5s", 0.5), ("2d", 172_800),
])  # fmt: skip
def test_a_budget_is_a_number_with_its_unit(text, seconds):
    assert budget_seconds(text) == seconds
    assert Config(train=TrainConfig(budget=text)).train.budget == text


@pytest.mark.parametrize(
    "text", ["24", "h", "24 h", "-1h", "0h", "1e3s", "24hours", "nans", "1h30m"]
)
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(
        UserError, match="^train.budget: found .*expected a time above 0, such as 24h"
    ):
        TrainConfig(budget=text)


@pytest.mark.parametrize("changes,message", [
    ({"phases": ("steps=6",)}, "phases: found 1 beside train.budget, expected none"),
    ({"finetune": FinetuneConfig(tasks=("rte=x",), max_seq_length=16)}, "finetune.tasks: found 1 beside train.budget"),
    (
        {"train": {"budget": "1h", "batch_size_schedule": "ramp", "max_batch_size": 16}},
        "train.batch_size_schedule: found ramp, expected constant, beside train.budget",
    ),
])  # fmt: skip
def test_what_does_not_go_with_a_budget_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        small_config(**{"train": {"budget": "1h"}} | changes)
