import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

import bertjax
from bertjax.cli.main import main
from bertjax.config.phases.resolution import Course
from bertjax.errors import UserError
from bertjax.training import checkpoint
from bertjax.training.batch_source import BatchSource
from bertjax.training.budget import budget as running
from bertjax.training.budget import record as budget
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from bertjax.training.optimization.plan import Plan, learning_rate
from bertjax.training.optimization.schedules import make_schedule
from bertjax.training.phases.branching import branched
from tests.factory import random_batch, small_config
from tests.tiny_library import write_library
from tests.training.runs import params_of
from tests.waiting import until

FRACTIONS = st.lists(st.floats(0, 1, width=32), max_size=9)


class KilledError(Exception):
    pass


def config_of(schedule="wsd", **train):
    """A run whose schedule is one of 100 steps, that has time for fewer."""
    return small_config(
        mesh={"data": -1},
        optimizer={"schedule": schedule, "warmup_steps": 20, "decay_steps": 40},
        train={
            "budget": "10s", "steps": 100, "log_every_steps": 2, "save_every_steps": 8,
            "eval_every_steps": 100, **train,
        },
    )  # fmt: skip


def source(killed_at=None, saved=None):
    """Batches of the step alone; at `killed_at` the run fails when the checkpoint `saved` is whole."""

    def batches(start, rows):
        for step in itertools.count(start):
            if step == killed_at:
                until(lambda: saved is None or saved.exists(), process=None)
                raise KilledError
            yield random_batch(np.random.default_rng(step), 8)

    return BatchSource(train=batches)


@pytest.fixture(scope="module")
def clock():
    """A clock that goes on by `seconds` whenever it is read."""
    with pytest.MonkeyPatch.context() as patch:

        def set_to(seconds):
            now = itertools.count()
            patch.setattr(running, "clock", lambda: seconds * next(now))

        yield set_to


def entries_of(run):
    return [entry for entry in read_entries(epath.Path(run)) if entry["split"] == "train"]


def named(run, name):
    return [entry[name] for entry in entries_of(run)]


def decided(run):
    """The fractions in the newest checkpoint."""
    meta = checkpoint.read_meta(checkpoint.newest_checkpoint(epath.Path(run)))
    return list(budget.from_meta(meta).passed)


@pytest.fixture(scope="module")
def continued(tmp_path_factory, clock):
    """A run that is killed at step 11, and goes on from the checkpoint of step 8, slower."""
    run, config = tmp_path_factory.mktemp("killed") / "run", config_of()
    clock(0.25)
    with pytest.raises(KilledError):
        train(config, run, source(11, run / "checkpoints" / "8"), began=0.0)
    before = entries_of(run)
    assert [entry["step"] for entry in before] == list(range(1, 11))
    clock(0.7)
    outcome = train(config, run, source(), began=0.0)
    assert not outcome.stopped
    return run, config, before


def test_rates_follow_the_time_and_a_kill_changes_none_that_was_recorded(continued):
    run, config, before = continued
    after = entries_of(run)
    # To the bit, with their losses; what was not recorded is decided anew.
    for entry, again in zip(before, after, strict=False):
        assert {n: again[n] for n in entry if not n.endswith("_per_second")} == {
            n: value for n, value in entry.items() if not n.endswith("_per_second")
        }
    passed = named(run, "budget_passed")
    assert passed == decided(run) == sorted(passed)
    assert max(passed[:-1]) < 1.0 == passed[-1]
    rates = make_schedule(config.optimizer, 100)(np.float32(passed) * np.float32(100))
    np.testing.assert_allclose(named(run, "learning_rate"), rates, rtol=1e-6)
    # wsd: the fall begins when the time left is its share of the whole.
    falls = [rate < 1e-2 for rate, part in zip(rates, passed, strict=True) if part > 0.2]
    assert falls == [part > 0.6 for part in passed if part > 0.2]
    # The time of steps that were made again counts: the fraction jumps.
    assert max(np.diff(passed)) > 0.1


def test_a_run_with_the_record_of_another_one_equals_it_to_the_bit(continued, tmp_path, clock):
    run, config, _ = continued
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(run / budget.FILE, again / budget.FILE)
    clock(0)
    assert train(config, again, source(), began=0.0).step == len(decided(run))
    assert named(again, "loss") == named(run, "loss")
    leaves = [jax.tree.leaves(params_of(each, config)) for each in (run, again)]
    assert all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))
    # Its time is used: it makes no further step.
    assert train(config, again, source(killed_at=0), began=0.0).step == len(decided(run))


@pytest.mark.parametrize(
    "schedule", ["linear", "cosine", "sqrt", "wsd", "constant", "inverse_sqrt"]
)
def test_each_schedule_is_gone_through_in_the_time(schedule):
    """As in the steps: at a whole number of them the rates are the same."""
    config = config_of(schedule).optimizer
    rate = learning_rate(config, Plan(Course(0, 100)))
    steps = np.arange(101)
    found = rate(np.float32(steps / 100) * np.float32(100))
    np.testing.assert_allclose(found, rate(steps), rtol=2e-5, atol=1e-5)


@given(FRACTIONS, st.integers(0, 9), st.floats(0, 1e6))
@settings(max_examples=20)
def test_a_record_comes_back_from_checkpoint_and_file(tmp_path_factory, passed, cut, seconds):
    whole = budget.Record(tuple(passed), seconds)
    assert budget.from_meta({"budget": budget.to_meta(whole)}) == whole
    assert budget.from_meta({}) == budget.NEW
    # The checkpoint has the first ones, the file those from 0 on, its last line cut by a kill.
    folder = epath.Path(tmp_path_factory.mktemp("budget"))
    line = {"step": 0, "passed": whole.passed, "seconds": seconds}
    (folder / budget.FILE).write_text(f'{json.dumps(line)}\n{{"step": 3, "pas')
    saved = budget.Record(whole.passed[:cut], 0.0)
    assert budget.recorded(folder, {"budget": budget.to_meta(saved)}) == whole


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"step": 0, "passed": [2], "seconds": 0}', "x", "NaN"]
)
def test_a_line_that_no_run_writes_is_refused(tmp_path, line):
    (tmp_path / budget.FILE).write_text(f"{line}\n")
    with pytest.raises(UserError, match="budget.jsonl: line 1"):
        budget.recorded(epath.Path(tmp_path), {})


def test_a_run_keeps_its_budget_and_has_no_branch(continued):
    run, config, _ = continued
    for change in ({"budget": "20s"}, {"budget": ""}, {"steps": 200}):
        with pytest.raises(UserError, match="found .*with which the run began"):
            train(config_of(**change), run, source())
    with pytest.raises(UserError, match="train.budget: found 10s, expected none, in a run that is"):
        branched(config, 2, ["steps=2"])


@pytest.mark.slow
def test_a_process_that_is_killed_at_random_keeps_what_was_recorded_and_replays_it(
    tmp_path, monkeypatch
):
    """With a real clock; no machine makes all steps in the time. Each record begins the next one."""
    write_library(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    words = ["--train.budget", "120s", "--train.steps", "100000", "--train.save-every-steps", "50"]
    words += ["--optimizer.schedule", "linear", "--optimizer.warmup-steps", "10000"]
    words += ["--data.dynamic-masking", "True", "--data.mlm-probability-to", "0.05"]
    assert main(["prepare", "tiny.py", "--data.dynamic-masking", "True"]) == 0
    run, rng = epath.Path("run"), random.Random(22)
    command = [sys.executable, "-m", "bertjax.cli.main", "train", "tiny.py", "--run-dir", "run"]
    before = ()
    for seconds in (rng.uniform(2, 6), rng.uniform(0, 3), None):
        process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
        if seconds is not None:
            made = len(before)
            until(lambda: len(budget.recorded(run, {}).passed) > made, process=process)  # noqa: B023
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
        assert process.returncode == (0 if seconds is None else -9), errors
        record = budget.recorded(run, {})
        assert record.passed[: len(before)] == before
        before = record.passed
    assert decided(run) == named(run, "budget_passed") == list(before)
    assert before[-1] == 1.0
    assert "the budget of 120 s is used" in errors
    for step in (1, len(before) // 2, len(before)):
        update = bertjax.replay("run", step)
        rate = named(run, "learning_rate")[step - 1]
        assert update.learning_rate == pytest.approx(rate, rel=1e-6, abs=1e-9)
        place = np.float32(before[step - 1]) * np.float32(100_000)
        assert update.mask_rate == pytest.approx(0.15 - 0.1 * place / 100_000, rel=1e-5)
    with pytest.raises(UserError, match=f"step {len(before) + 1}: found no record of the time"):
        bertjax.replay("run", len(before) + 1)
    # It is over: another start makes no step.
    assert subprocess.run([*command, *words], check=True, capture_output=True).returncode == 0
    assert decided(run) == list(before)
