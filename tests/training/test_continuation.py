"""What may change when a run is continued."""

import json
import logging

import pytest
from etils import epath

from bertjax.config import to_dict
from bertjax.errors import UserError
from bertjax.training import continuation, run_config
from tests.factory import small_config

PATH = epath.Path("run/config.json")
DROPOUT = {"hidden_dropout_prob": 0.1}


def changed(before, made=3, **changes):
    """Compare a run with its continuation; `before` and `changes` are fields of sections."""
    first = small_config(**before)
    continuation.check_unchanged(PATH, first, first.replace(**changes), made)


@pytest.mark.parametrize("bits", ["threefry", "hash"])
def test_the_parts_of_a_batch_may_change_where_dropout_follows_the_rows(bits):
    model = DROPOUT | {"dropout_bits": bits}
    changed({"model": model}, train={"gradient_accumulation_steps": 4})
    changed({"model": model, "train": {"gradient_accumulation_steps": 4}},
            train={"gradient_accumulation_steps": 1})  # fmt: skip


@pytest.mark.parametrize("before", [
    {"model": DROPOUT | {"dropout_bits": "rbg"}},
    {"model": DROPOUT, "train": {"dropout_numbering": "part", "gradient_accumulation_steps": 2}},
    {"train": {"batch_size_schedule": "adaptive", "max_batch_size": 16,
               "gradient_accumulation_steps": 2}},
])  # fmt: skip
def test_the_parts_of_a_batch_must_stay_where_a_result_depends_on_them(before):
    with pytest.raises(UserError, match=r"train\.gradient_accumulation_steps: found 4, expected"):
        changed(before, train={"gradient_accumulation_steps": 4})


def test_without_dropout_the_parts_may_change_under_either_rule():
    changed({"train": {"dropout_numbering": "part"}}, train={"gradient_accumulation_steps": 4})


def test_a_longer_run_needs_a_restart_where_its_schedule_looks_at_the_steps():
    began = {"train": {"steps": 100}, "optimizer": {"warmup_steps": 10}}
    with pytest.raises(UserError) as refused:
        changed(began, made=100, train={"steps": 150})
    assert "train.steps: found 150, expected 100" in str(refused.value)
    assert "optimizer.restarts 100 beside it" in str(refused.value)
    # No restart makes a run shorter.
    with pytest.raises(UserError) as refused:
        changed(began, made=100, train={"steps": 50})
    assert "restarts" not in str(refused.value)
    longer = {"train": {"steps": 150}, "optimizer": {"restarts": (100,)}}
    changed(began, made=100, **longer)
    # Interrupted, and asked for more before its end.
    changed(began, made=60, **longer)
    # A second continuation keeps the restart and adds another.
    again = {"train": {"steps": 150}, "optimizer": {"warmup_steps": 10, "restarts": (100,)}}
    with pytest.raises(UserError, match="optimizer.restarts 100 150 beside it"):
        changed(again, made=150, train={"steps": 300})
    twice = {"train": {"steps": 300}, "optimizer": {"restarts": (100, 150)}}
    changed(again, made=150, **twice)


@pytest.mark.parametrize("restart", [50, 99, 101])
def test_a_restart_that_would_have_changed_steps_that_were_made_is_refused(restart):
    began = {"train": {"steps": 100}, "optimizer": {"warmup_steps": 10}}
    with pytest.raises(UserError, match=r"optimizer\.restarts: found .*, expected \[?\(?\)?"):
        changed(began, made=100, train={"steps": 150}, optimizer={"restarts": (restart,)})


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt"])
def test_a_longer_run_of_a_schedule_that_does_not_look_at_the_steps_is_free(schedule):
    began = {"optimizer": {"schedule": schedule, "warmup_steps": 2}, "train": {"steps": 6}}
    changed(began, made=6, train={"steps": 60})


def test_a_constant_rate_may_decay_from_a_later_step_on():
    began = {"optimizer": {"schedule": "constant", "warmup_steps": 2}, "train": {"steps": 100}}
    decay = {"schedule": "multistep", "milestones": (80,), "decay_factor": 0.5}
    changed(began, made=80, optimizer=decay)
    with pytest.raises(UserError, match=r"optimizer\.schedule: found multistep"):
        changed(began, made=81, optimizer=decay)


def test_the_log_says_which_schedule_follows(caplog):
    began = {"train": {"steps": 100}, "optimizer": {"warmup_steps": 10}}
    with caplog.at_level(logging.INFO, "bertjax"):
        changed(began, made=100, train={"steps": 150}, optimizer={"restarts": (100,)})
    assert "from step 100 on: 150 steps instead of 100, linear, restarts 100" in caplog.text


@pytest.mark.parametrize(("parts", "numbering"), [(1, "row"), (2, "part")])
def test_a_run_of_before_the_setting_keeps_the_rule_that_it_began_with(tmp_path, parts, numbering):
    folder = epath.Path(tmp_path)
    config = small_config(model=DROPOUT, train={"gradient_accumulation_steps": parts})
    values = to_dict(config)
    del values["train"]["dropout_numbering"]
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    for _ in range(2):  # the second start reads what the first one wrote
        continued = run_config.write_run_config(folder, config)
        assert continued.train.dropout_numbering == numbering
        assert run_config.read_run_config(folder).train.dropout_numbering == numbering
    assert config.replace(train={"dropout_numbering": numbering}) == continued


def test_a_mixture_may_be_moved_and_its_corpora_stay():
    began = {"data": {"mixture": ("a=old/a", "b=old/b")}}
    changed(began, data={"mixture": ("a=new=place/a", "b=old/b")})
    changed(began, train={"data_changes": (3,)})
    with pytest.raises(UserError, match=r"data\.mixture: found .'b', 'a'., expected .'a', 'b'."):
        changed(began, data={"mixture": ("b=old/b", "a=old/a")})


def test_only_a_run_with_tasks_depends_on_what_heads_on_tokens_read():
    on_tokens = {"token_pooler": True}
    changed({}, model=on_tokens)
    with pytest.raises(UserError, match=r"model\.token_pooler: found True, expected False"):
        changed({"finetune": {"tasks": ("rte=RTE",), "max_seq_length": 16}}, model=on_tokens)
