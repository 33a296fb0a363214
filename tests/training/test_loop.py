import contextlib
import dataclasses
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from functools import partial

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.data.batch_checks import inspect_batch
from bertjax.errors import UserError
from bertjax.training.batch_source import BatchSource
from bertjax.training.evaluate import heldout_evaluator
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from bertjax.training.saved_model import save_model
from bertjax.training.step import init_state
from tests.factory import random_batch, small_config
from tests.training.runs import params_of


def config_of(**changes):
    """Small, on all eight devices."""
    return small_config(**{"mesh": {"data": -1}} | changes)


def batch_of(step, rows=8):
    return random_batch(np.random.default_rng(1000 + step), rows)


def batch_source(spoil=None, after=None):
    """Batches that depend on the step alone.

    `spoil` may change one; `after` is called when a step's batch is asked for.
    """

    def batches(start, rows):
        for step in itertools.count(start):
            if after:
                after(step)
            batch = {name: values[rows] for name, values in batch_of(step).items()}
            yield spoil(step, batch) if spoil else batch

    make_evaluator = partial(heldout_evaluator, {"all": lambda rows, most: [batch_of(99)]})
    return BatchSource(
        train=batches,
        make_evaluator=make_evaluator,
        inspect=partial(inspect_batch, config=config_of()),
    )


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path) / "run"


def identical(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = epath.Path(tmp_path_factory.mktemp("undisturbed")) / "run"
    calls = []
    outcome = train(
        config_of(),
        run,
        batch_source(),
        progress=lambda *a: calls.append(a),
        on_evaluation=lambda: calls.append("eval"),
    )
    return run, outcome, calls


@pytest.mark.quick
def test_a_run_leaves_its_metrics_checkpoints_and_configuration(undisturbed):
    run, outcome, calls = undisturbed
    assert (outcome.step, outcome.stopped) == (6, False)
    rows = read_entries(run)
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["split"] == "validation"] == [3, 6]
    assert {
        "loss",
        "mlm_loss",
        "mlm_accuracy",
        "nsp_loss",
        "nsp_accuracy",
        "learning_rate",
        "grad_norm",
    } < set(rows[0])
    assert all(
        "tokens_per_second" in row
        for row in rows
        if row["step"] in (4, 6) and row["split"] == "train"
    )
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if p.name.isdigit()) == ["3", "6"]
    assert calls.count("eval") == 2
    assert ("train", 6, 6) in calls
    assert [entry["step"] for entry in outcome.evaluations] == [3, 6]


def test_a_stopped_run_that_goes_on_ends_as_the_undisturbed_one(undisturbed, run):
    def stop_at_step_4(step):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    outcome = train(config_of(), run, batch_source(after=stop_at_step_4))
    assert outcome.stopped
    assert outcome.step in (4, 5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not train(config_of(), run, batch_source()).stopped
    assert identical(params_of(run, config_of()), params_of(undisturbed[0], config_of()))
    expected = [(r["step"], r["split"], r["loss"]) for r in read_entries(undisturbed[0])]
    assert [(r["step"], r["split"], r["loss"]) for r in read_entries(run)] == expected


def test_a_finished_run_started_again_does_nothing(undisturbed):
    run, _, _ = undisturbed
    before = (run / "metrics.jsonl").read_text()
    assert train(config_of(), run, batch_source()).step == 6
    assert (run / "metrics.jsonl").read_text() == before


def cannot_be_written(run):
    """Put folders and files in the place of all that watches a run."""
    for name in ("metrics.jsonl", "log.txt"):
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()
    (run / "tensorboard").rmtree()
    (run / "tensorboard").write_text("")


def test_a_run_whose_metrics_cannot_be_written_ends_as_the_undisturbed_one(
    undisturbed, run, caplog
):
    def refuse_at_step_2(step):
        if step == 2:
            cannot_be_written(run)

    outcome = train(
        config_of(train={"log_every_steps": 1}), run, batch_source(after=refuse_at_step_2)
    )
    assert (outcome.step, outcome.stopped) == (6, False)
    assert identical(params_of(run, config_of()), params_of(undisturbed[0], config_of()))
    assert [entry["step"] for entry in outcome.evaluations] == [3, 6]
    refused = [r.getMessage() for r in caplog.records if "cannot be written" in r.getMessage()]
    assert len(refused) == 2, refused  # metrics.jsonl, and the events


def test_figures_that_a_resumed_run_has_lost_are_computed_again(undisturbed, run, caplog):
    shutil.copytree(undisturbed[0], run)
    rows = read_entries(run)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[:4]))
    outcome = train(config_of(), run, batch_source())
    assert [entry["step"] for entry in outcome.evaluations] == [3, 6]
    assert outcome.evaluations[1] == rows[-1]
    assert "metrics.jsonl: no entries from step 4 to 6" in caplog.text


def test_the_checkpoint_of_a_step_is_begun_before_its_report(run):
    seen = []

    def report():
        names = [path.name.split(".")[0] for path in (run / "checkpoints").iterdir()]
        seen.append(sorted(name for name in names if name.isdigit()))

    train(config_of(), run, batch_source(), on_evaluation=report)
    assert seen == [["3"], ["3", "6"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_checkpoint_that_a_full_disk_refuses_ends_the_run_at_once(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    asked = []

    def after(step):
        asked.append(step)
        if step == 2:
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        if step >= 30:
            time.sleep(0.1)  # for the thread that saves

    config = config_of(train={"steps": 500, "save_every_steps": 30, "eval_every_steps": 500})
    try:
        with pytest.raises(UserError, match="the disk is full, the checkpoint was not written"):
            train(config, epath.Path(disk) / "run", batch_source(after=after))
        assert 30 <= max(asked) < 59
    finally:
        subprocess.run(["umount", str(disk)], check=True)


DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def test_a_run_that_goes_on_with_more_accumulation_ends_as_the_undisturbed_one(tmp_path):
    whole, resumed = epath.Path(tmp_path) / "whole", epath.Path(tmp_path) / "resumed"
    # Two devices have the rows of a batch, and the others other parts of the model.
    shared = {"model": DROPOUT, "mesh": {"data": 2, "tensor": 2, "sequence": 2}}
    config = config_of(**shared)
    in_parts = config_of(**shared, train={"gradient_accumulation_steps": 4})
    train(config, whole, batch_source())

    def stop_at_step_4(step):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    assert train(config, resumed, batch_source(after=stop_at_step_4)).stopped
    train(in_parts, resumed, batch_source())
    pairs = zip(
        jax.tree.leaves(params_of(whole, config)),
        jax.tree.leaves(params_of(resumed, config)),
        strict=True,
    )
    # Rounding only: with other masks the parameters differ by a hundred times as much.
    assert max(float(np.abs(a - b).max()) for a, b in pairs) < 1e-4


def test_a_finished_run_goes_on_with_a_restart_and_keeps_the_steps_that_it_made(undisturbed, run):
    shutil.copytree(undisturbed[0], run)
    longer = config_of(train={"steps": 9}, optimizer={"restarts": (6,)})
    assert train(longer, run, batch_source()).step == 9
    before, after = read_entries(undisturbed[0]), read_entries(run)
    assert after[: len(before)] == before
    rates = [row["learning_rate"] for row in after if row["split"] == "train"]
    assert rates[6] == longer.optimizer.end_learning_rate
    assert max(rates[7:]) > rates[5]


def test_a_run_may_start_from_the_parameters_of_another(undisturbed, run):
    source = undisturbed[0]
    config = config_of(init_from=str(source), train={"steps": 3}, optimizer={"warmup_steps": 3})
    train(config, run, batch_source())
    fresh = next(r["mlm_loss"] for r in read_entries(source) if r["split"] == "train")
    warm = next(r["mlm_loss"] for r in read_entries(run) if r["split"] == "train")
    assert warm < fresh


def test_heads_that_the_source_lacks_start_at_random_only_when_asked(undisturbed, tmp_path):
    """And what is not theirs is the source's."""
    short = {"train": {"steps": 1}, "optimizer": {"warmup_steps": 1}}  # a first update of rate 0
    encoder = dataclasses.replace(config_of().model, heads=("pooler",))
    source = params_of(undisturbed[0], config_of())
    save_model(
        tmp_path / "encoder",
        config_of(model=encoder),
        {k: source[k] for k in source.keys() - {"mlm", "nsp"}},
        None,
        {},
    )
    with pytest.raises(UserError, match="params/mlm/bias: found no such tensor"):
        train(
            config_of(init_from=str(tmp_path / "encoder"), **short),
            epath.Path(tmp_path / "a"),
            batch_source(),
        )
    config = config_of(init_from=str(tmp_path / "encoder"), new_heads=("mlm", "nsp"), **short)
    train(config, epath.Path(tmp_path / "b"), batch_source())
    trained, fresh = params_of(tmp_path / "b", config), jax.jit(lambda: init_state(config).params)()
    for group in trained:
        assert identical(trained[group], (fresh if group in ("mlm", "nsp") else source)[group]), (
            group
        )
    # One that the source has may be begun anew, too.
    config = config_of(init_from=str(undisturbed[0]), new_heads=("mlm",), **short)
    train(config, epath.Path(tmp_path / "c"), batch_source())
    assert identical(params_of(tmp_path / "c", config)["mlm"], fresh["mlm"])


def test_a_model_without_the_heads_of_its_objective_is_not_trained(tmp_path):
    config = config_of(model=dataclasses.replace(config_of().model, heads=("mlm",)))
    with pytest.raises(
        UserError,
        match="model.heads: found mlm, expected mlm and nsp too, for data.sentence_objective next",
    ):
        train(config, epath.Path(tmp_path / "run"), batch_source())
    assert not (tmp_path / "run").exists()


def test_another_configuration_in_the_same_folder_is_refused(undisturbed):
    with pytest.raises(UserError, match=r"config\.json: seed: found 1, expected 0"):
        train(config_of(seed=1), undisturbed[0], batch_source())


def poison(model_breaks_at):
    """Ids out of range are caught before; here a label weight is NaN, so the loss is not finite."""

    def spoil(step, batch):
        if step in model_breaks_at:
            batch["masked_lm_weights"] = batch["masked_lm_weights"] * np.float32(np.nan)
        return batch

    return spoil


def test_a_batch_whose_loss_is_not_finite_is_skipped_and_kept_for_study(run, caplog):
    with caplog.at_level(logging.WARNING, "bertjax"):
        assert train(config_of(), run, batch_source(spoil=poison({2}))).step == 6
    rows = [row for row in read_entries(run) if row["split"] == "train"]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 0, 0, 0]
    assert rows[2]["mlm_loss"] is None
    kept = np.load(run / "nonfinite" / "step-3.npz")
    assert np.array_equal(kept["input_ids"], batch_of(2)["input_ids"])
    assert "step 3: loss or gradient not finite" in caplog.text
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params_of(run, config_of())))


def test_several_in_a_row_end_the_run_with_a_clear_error(run):
    config = config_of(train={"max_nonfinite_steps": 3})
    with pytest.raises(
        UserError, match="step 5: loss or gradient not finite in 3 updates in a row"
    ):
        train(config, run, batch_source(spoil=poison({2, 3, 4})))


def test_an_id_outside_the_vocabulary_ends_the_run_before_its_step(run):
    def spoil(step, batch):
        batch["input_ids"][0, 0] = 64 if step == 1 else batch["input_ids"][0, 0]
        return batch

    with pytest.raises(UserError, match="input_ids, row 0: found id 64, expected 0 to 63"):
        train(config_of(), run, batch_source(spoil=spoil))


def test_an_odd_first_batch_is_warned_of(run, caplog):
    def spoil(step, batch):
        return {name: np.repeat(values[:1], len(values), axis=0) for name, values in batch.items()}

    with caplog.at_level(logging.WARNING, "bertjax"):
        train(config_of(train={"steps": 2}), run, batch_source(spoil=spoil))
    assert "first batch: 88% of the rows are duplicates" in caplog.text


def test_overfitting_is_warned_of(run, caplog):
    """One batch learnt by heart, and held-out rows that have nothing to do with it."""
    config = config_of(
        train={
            "steps": 120,
            "eval_every_steps": 10,
            "save_every_steps": 120,
            "log_every_steps": 10,
        },
        optimizer={"peak_learning_rate": 3e-3, "schedule": "constant"},
    )
    same = BatchSource(
        train=lambda start, rows: itertools.repeat(batch_of(0)),
        make_evaluator=batch_source().make_evaluator,
    )
    with caplog.at_level(logging.WARNING, "bertjax"):
        train(config, run, same)
    assert "overfitting: held-out loss rises while training loss falls" in caplog.text


@pytest.mark.parametrize("changes,message", [
    ({"train": {"batch_size": 6}, "mesh": {"data": 4, "fsdp": 2}}, r"train\.batch_size: found 6, expected a multiple of the devices"),
    ({"mesh": {"data": 3}}, r"mesh: found replica 1 x data 3 x .*, expected axes that multiply to the number of devices \(8\)"),
])  # fmt: skip
def test_a_batch_or_mesh_that_does_not_fit_the_devices_is_refused(run, changes, message):
    with pytest.raises(UserError, match=message):
        train(config_of(**changes), run, batch_source())
    assert not run.exists()
