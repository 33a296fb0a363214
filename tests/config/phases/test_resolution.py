import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, OptimizerConfig, TrainConfig, from_dict, to_dict
from bertjax.config.field_types import field_types
from bertjax.config.phases.phase_text import FIELDS, SECTIONS, count_of, parse_phase
from bertjax.config.phases.resolution import (
    Course,
    phase_before,
    phases_of,
    planned_steps,
    tokens_at,
)
from bertjax.errors import UserError


def config_of(*phases, steps=100, **sections):
    return Config(
        phases=phases,
        data=DataConfig(dynamic_masking=True, max_predictions_per_seq=40),
        optimizer=OptimizerConfig(**{"warmup_steps": 5} | sections.pop("optimizer", {})),
        train=TrainConfig(**{"steps": steps, "batch_size": 2} | sections.pop("train", {})),
    )


def spans(config):
    return [(phase.begin, phase.end) for phase in phases_of(config)]


def test_a_run_without_phases_is_one_phase_with_its_own_configuration():
    config = config_of()
    (phase,) = phases_of(config)
    assert phase.config is config
    assert (phase.begin, phase.end, phase.changed) == (0, 100, ())
    assert phase.rate == phase.masks == phase.growth == Course(0, 100)


def test_lengths_are_steps_or_tokens_and_the_last_is_the_rest():
    # A step has 2 rows of 128 tokens, then 4 rows: 2,560 tokens are 10 steps, then 5.
    config = config_of("steps=50", "tokens=2.56k", "tokens=2560 train.batch_size=4", "from=65")
    assert spans(config) == [(0, 50), (50, 60), (60, 65), (65, 100)]
    assert tokens_at(phases_of(config), 62) == 60 * 256 + 2 * 512
    numbers = [phase_before(phases_of(config), s).number for s in (0, 49, 50, 51, 100)]
    assert numbers == [1, 1, 1, 2, 4]


def test_a_phase_keeps_what_the_phase_before_it_changed():
    first, second, third = phases_of(config_of(
        "steps=50", "steps=20 data.max_seq_length=64 optimizer.weight_decay=0.5", "model.remat=full",
    ))  # fmt: skip
    assert first.config.data.max_seq_length == 128
    assert (third.config.data.max_seq_length, third.config.optimizer.weight_decay) == (64, 0.5)
    assert (second.config.model.remat, third.config.model.remat) == ("none", "full")


def test_a_course_goes_on_through_phases_that_name_none_of_its_fields():
    phases = phases_of(config_of(
        "steps=30 data.mlm_probability=0.3 data.mlm_probability_to=0.15",
        "steps=30 optimizer.weight_decay=0.1",
        "steps=20 optimizer.schedule=sqrt data.max_seq_length=64",
        "data.mlm_probability=0.15",
    ))  # fmt: skip
    assert [phase.rate for phase in phases] == [Course(0, 60)] * 2 + [Course(60, 40)] * 2
    assert [phase.masks for phase in phases] == [Course(0, 80)] * 3 + [Course(80, 20)]
    assert [phase.growth for phase in phases] == [Course(0, 100)] * 4
    # A warmup is the first phase's own, and a mask rate that is named is constant.
    assert [phase.config.optimizer.warmup_steps for phase in phases] == [5, 5, 0, 0]
    assert [phase.config.data.mlm_probability_to for phase in phases] == [0.15, 0.15, 0.15, 0.0]


def test_a_phase_that_names_its_folder_leaves_the_mixture_before_it():
    first, second, third = phases_of(config_of(
        "steps=1 data.mixture=en=a/en,de=a/de data.mixture_weights=2,1",
        "steps=1 data.prepared_dir='with space'",
        "data.mixture=en=b",
    ))  # fmt: skip
    assert first.config.data.mixture == ("en=a/en", "de=a/de")
    assert first.config.data.mixture_weights == (2.0, 1.0)
    assert (second.config.data.prepared_dir, second.config.data.mixture) == ("with space", ())
    assert third.config.data.mixture_weights == ()


def test_tokens_of_the_schedule_are_counted_over_phases_of_other_batches():
    # The decay's 5,120 tokens: 5 steps of 512 and 10 of 256, counted back from the end.
    config = config_of(
        "steps=95", "train.batch_size=4",
        optimizer={"schedule": "wsd", "decay_tokens": 5120, "warmup_tokens": 1000},
    )  # fmt: skip
    for phase in phases_of(config):
        assert (phase.config.optimizer.decay_steps, phase.config.optimizer.warmup_steps) == (15, 4)


def test_a_configuration_with_phases_comes_back_from_json():
    config = config_of("steps=50", "data.max_seq_length=64")
    assert from_dict(Config, to_dict(config)) == config
    assert planned_steps(config, ["steps=7", "tokens=512"]) == 9


def test_every_field_of_the_table_is_one_of_the_configuration():
    for name in FIELDS:
        section, _, field = name.partition(".")
        assert field in field_types(SECTIONS[section]), name


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_phases_follow_one_another_without_a_gap(lengths):
    config = config_of(
        *(f"steps={n}" for n in lengths), steps=sum(lengths), optimizer={"warmup_steps": 0}
    )
    assert spans(config)[0][0] == 0
    assert [end for _, end in spans(config)[:-1]] == [begin for begin, _ in spans(config)[1:]]
    assert [end - begin for begin, end in spans(config)] == lengths


@pytest.mark.parametrize("phases,message", [
    (("steps=50",), "train.steps: found 100, expected 50, where the last of phases ends"),
    (("steps=50", "steps=60"), "train.steps: found 100, expected 110, where the last of phases ends"),
    (("steps=50", "from=60"), "phase 2: from: found 60, a gap, expected 50, where the phase before it ends"),
    (("steps=50", "from=40"), "phase 2: from: found 40, an overlap, expected 50"),
    (("steps=100", ""), "phase 2: train.steps: found 0 steps left, expected 1 or more"),
    (("", "steps=5"), "phase 1: phases: found no length, expected steps=N or tokens=N"),
    (("steps=5 tokens=5",), "phase 1: phases: found steps and tokens, expected steps=N or tokens=N"),
    (("steps=0", ""), "phase 1: steps: found 0, expected a number above 0"),
    (("steps=5x",), "phase 1: steps: found '5x', expected a whole number, such as 900, 1.5M or 50B"),
    (("steps=0.5",), "phase 1: steps: found '0.5', expected a whole number"),
    (("data.max_seq_len=3",), "phase 1: phases: found 'data.max_seq_len', expected .*the nearest is data.max_seq_length"),
    (("model.hidden_size=3",), "phase 1: phases: found 'model.hidden_size', expected from, steps, tokens, or a field"),
    (("steps",), "phase 1: phases: found 'steps', expected NAME=VALUE"),
    (("steps=1 steps=2",), "phase 1: phases: found steps twice, expected once"),
    (("data.prepared_dir='a",), "phase 1: phases: found .*, expected closed quotes"),
    (("steps=9", "data.max_seq_length=1024"), "phase 2: data.max_seq_length|phase 2: data.max_predictions_per_seq"),
    (("optimizer.weight_decay=x",), "phase 1: optimizer.weight_decay: found 'x', expected a number"),
    (("data.cross_documents=1",), "phase 1: data.cross_documents: found '1', expected True or False"),
    (("optimizer.schedule=sine",), "phase 1: optimizer.schedule: found 'sine', expected one of linear"),
    (("data.prepared_dir=a data.mixture=en=b",), "phase 1: phases: found data.prepared_dir and data.mixture, expected one of them"),
    (("optimizer.schedule=wsd optimizer.decay_steps=96", ), "optimizer.decay_steps: found 96, expected at most 95"),
    (("steps=90", "optimizer.schedule=sqrt optimizer.warmup_steps=11"), "phase 2: optimizer.warmup_steps: found 11, expected at most 10"),
    (("train.batch_size_schedule=adaptive train.max_batch_size=4 train.gradient_accumulation_steps=2",), "phase 1: train.batch_size_schedule: found adaptive, expected constant or ramp"),
])  # fmt: skip
def test_phases_that_cannot_be_are_refused_in_one_line(phases, message):
    with pytest.raises(UserError, match=message) as refused:
        config_of(*phases)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changes,found", [
    ({"finetune": {"tasks": ("a:regression=x",)}}, "1 beside finetune.tasks"),
    ({"distill": {"teacher": "runs/x"}}, "1 beside distill.teacher"),
    ({"optimizer": {"restarts": (50,)}}, "1 beside optimizer.restarts"),
])  # fmt: skip
def test_phases_are_of_pretraining_alone(changes, found):
    with pytest.raises(UserError, match=f"phases: found {found}, expected none"):
        config_of("steps=100").replace(**changes)


@pytest.mark.parametrize("text,number", [("0", 0), ("900", 900), ("1.5k", 1500), ("50B", 50 * 10**9), ("1.7T", 1.7e12)])  # fmt: skip
def test_a_count_may_have_a_suffix(text, number):
    assert count_of(text, "tokens") == number


def test_values_of_a_phase_have_the_types_of_their_fields():
    _, values = parse_phase(
        "data.cross_documents=true optimizer.milestones=5,9 train.batch_size=1k"
    )
    assert values == {
        "data.cross_documents": True,
        "optimizer.milestones": (5, 9),
        "train.batch_size": 1000,
    }


def test_the_worked_configuration_of_the_page_is_one():
    page = (Path(__file__).parents[3] / "docs" / "phases.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names = {}
    exec(block, names)
    phases = phases_of(names["get_config"]())
    assert [phase.config.data.max_seq_length for phase in phases] == [128, 1024, 1024, 1024]
    assert phases[-1].rate.begin == phases[-1].begin
    # And its table is that of the program.
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)
    listed = {
        f"{section}.{name}" for section, cell in rows for name in re.findall(r"`(\w+)`", cell)
    }
    assert listed == set(FIELDS)


VALUES = ["", "0", "-1", "1", "3", "0.5", "1e-3", "nan", "inf", "1e999", "9" * 30, "5k", "50B", "true", "None", "wsd", "ramp",
          "step", "multistep", "a=b", "a=b,c=d", ",", "1,2", "=", "\u0663", "\x00", "\ud800", "'", "a b"]  # fmt: skip
NAMES = ["from", "steps", "tokens", *FIELDS, "model.hidden_size", "data", "", "train.steps"]
WORDS = st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)) | st.text(
    max_size=5
)


@given(st.lists(st.lists(WORDS, max_size=4).map(" ".join), min_size=1, max_size=4))
@settings(max_examples=150)
def test_any_text_gives_phases_that_fill_the_run_or_one_line(texts):
    refused = None
    try:
        phases = phases_of(config_of(*texts))
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        return
    assert (phases[0].begin, phases[-1].end) == (0, 100)
    assert all(phase.rate.steps > 0 and phase.masks.steps > 0 for phase in phases)
