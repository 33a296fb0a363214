import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.cli.main import main
from bertjax.config import to_dict
from bertjax.errors import UserError
from bertjax.training.checkpoint import read_checkpoint_config, read_phase_configs
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from tests.tiny_library import write_library
from tests.training.phases.phased import FOUR, OBJECTIVES, TWO, phased_config, phased_source
from tests.training.runs import params_of
from tests.waiting import until

RATES = ("tokens_per_second", "steps_per_second", "sequences_per_second")


def figures(run):
    """The entries of a run's metrics without those that measure time."""
    entries = read_entries(run)
    return [{n: v for n, v in entry.items() if n not in RATES} for entry in entries]


def steps_of(run):
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = epath.Path(tmp_path_factory.mktemp("phases")) / "run"
    config = phased_config()
    train(config, run, phased_source(config))
    return run


@pytest.fixture(scope="module")
def whole_of_four(tmp_path_factory):
    run = epath.Path(tmp_path_factory.mktemp("phases")) / "run"
    config = phased_config(FOUR, 11)
    train(config, run, phased_source(config))
    return run


def same_state(run, other, config):
    leaves = [jax.tree.leaves(params_of(each, config)) for each in (run, other)]
    assert all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


def trained_with_stops(config, run, stops):
    """Train, and send a signal while the batch of each of these steps is asked for."""
    for stop_at in stops:

        def after(step, stop_at=stop_at):
            if step == stop_at:
                signal.raise_signal(signal.SIGTERM)

        outcome = train(config, run, phased_source(config, after))
        # The update that takes the batch is made.
        assert (outcome.step, outcome.stopped) == (stop_at + 1, True)
    train(config, run, phased_source(config))


def test_one_process_runs_all_phases_each_with_its_fields(whole):
    entries = figures(whole)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5]
    rates = [entry["learning_rate"] for entry in entries]
    np.testing.assert_allclose(rates, [0, 5e-3, 1e-2, 1e-2, 1e-2 * (1 - np.sqrt(0.5))], rtol=1e-5)
    # 8 rows of 16 tokens at most, then 16 rows of 24.
    tokens = [entry["tokens"] for entry in entries]
    assert max(tokens[:3]) <= 128 < min(tokens[3:])


def test_a_run_that_is_stopped_at_a_boundary_ends_as_the_whole_one(whole, tmp_path):
    run, config = epath.Path(tmp_path) / "run", phased_config()
    trained_with_stops(config, run, [2])
    same_state(run, whole, config)
    assert figures(run) == figures(whole)


@pytest.mark.slow
def test_a_run_that_changes_its_objective_and_is_stopped_at_each_step_ends_as_the_whole_one(
    tmp_path,
):
    config = phased_config(OBJECTIVES, 6)
    whole, stopped = epath.Path(tmp_path) / "whole", epath.Path(tmp_path) / "stopped"
    train(config, whole, phased_source(config))
    trained_with_stops(config, stopped, range(5))
    assert figures(stopped) == figures(whole)
    same_state(stopped, whole, config)
    assert all(entry["loss"] > 1 for entry in figures(whole) if "loss" in entry)


@pytest.mark.slow
def test_four_phases_stopped_at_many_steps_and_each_boundary_end_as_the_whole_run(
    whole_of_four, tmp_path
):
    run, config = epath.Path(tmp_path) / "run", phased_config(FOUR, 11)
    trained_with_stops(config, run, [1, 2, 4, 5, 6, 7, 9])
    same_state(run, whole_of_four, config)
    assert figures(run) == figures(whole_of_four)


def test_marked_steps_are_kept_beside_the_latest_with_the_configuration_of_their_phase(whole):
    assert steps_of(whole) == [0, 3, 5]
    folders = [whole / "checkpoints" / str(step) for step in (0, 3, 5)]
    kept = [read_checkpoint_config(folder) for folder in folders]
    assert [read_phase_configs(folder) for folder in folders] == [
        (kept[0],),
        (kept[1],),
        (kept[1], kept[2]),
    ]
    assert [config.data.max_seq_length for config in kept] == [16, 16, 24]
    assert [config.model.rotary_base for config in kept] == [10_000, 10_000, 160_000]


def test_a_run_that_goes_on_keeps_its_phases_however_their_lengths_are_written(whole):
    # 8 rows of 16 tokens are 128 a step; a policy that changes no number is free.
    tokens = (TWO[0].replace("steps=3", "tokens=384"), f"{TWO[1]} model.remat=full")
    config = phased_config(tokens)
    train(config, whole, phased_source(config))
    config = phased_config((TWO[0], TWO[1].replace("sqrt", "linear")))
    with pytest.raises(UserError, match="phases: found .*expected .*steps 3 to 5 .*sqrt"):
        train(config, whole, phased_source(config))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 4}, {"data": 4, "tensor": 2}])
def test_another_mesh_has_the_same_batches_masks_and_losses(whole_of_four, tmp_path, mesh):
    run, config = epath.Path(tmp_path) / "run", phased_config(FOUR, 11, mesh=mesh)
    train(config, run, phased_source(config))
    for entry, expected in zip(figures(run), figures(whole_of_four), strict=True):
        assert entry["tokens"] == expected["tokens"]
        assert entry["loss"] == pytest.approx(expected["loss"], abs=1e-5)


ON_DISK = (
    "steps=6 data.mlm_probability=0.3 data.mlm_probability_to=0.15",
    "steps=5 data.prepared_dir=prepared/short data.max_seq_length=16 model.rotary_base=160000",
    "steps=4 data.mixture=long=prepared/tiny,again=prepared/tiny data.max_seq_length=32"
    " train.batch_size=16",
    "optimizer.schedule=sqrt",
)
"""Phases that end at steps 6, 11, 15 and 20."""


def killed_at(words, checkpoint, seconds):
    """Start a run in a process of its own, and kill it when a checkpoint is there, or later."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bertjax.cli.main", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: checkpoint.exists() or process.poll() is not None, process=None)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode in (-9, 0), errors


@pytest.mark.slow
def test_a_process_that_is_killed_at_each_boundary_and_at_random_ends_as_the_whole_run(
    tmp_path, monkeypatch
):
    write_library(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    config = bertjax.load_config("tiny.py").replace(
        data={"dynamic_masking": True, "max_predictions_per_seq": 10},
        model={"positions": "rotary"},
        optimizer={"schedule": "constant", "warmup_steps": 2},
        train={"steps": 20, "save_every_steps": 1, "eval_every_steps": 7, "keep_checkpoints": 3},
    )
    bertjax.prepare(config)
    phased = config.replace(phases=ON_DISK)
    Path("phased.json").write_text(json.dumps(to_dict(phased)))
    vocabulary = ["--tokenizer.vocab-file", "prepared/tiny/tokenizer/vocab.txt"]
    assert main(["prepare", "phased.json", "--phase", "2", *vocabulary]) == 0
    words = ["train", "phased.json", "--run-dir"]
    subprocess.run([sys.executable, "-m", "bertjax.cli.main", *words, "whole"], check=True)

    rng = random.Random(22)
    run = epath.Path("killed")
    boundaries = [(6, 0.0), (11, 0.0), (15, 0.0)]
    moments = boundaries + [(rng.randint(1, 19), rng.random()) for _ in range(5)]
    for step, seconds in sorted(moments):
        killed_at([*words, str(run)], run / "checkpoints" / str(step), seconds)
    subprocess.run([sys.executable, "-m", "bertjax.cli.main", *words, str(run)], check=True)
    same_state(run, epath.Path("whole"), phased)
    assert figures(run) == figures(epath.Path("whole"))
