"""Phases of a run by several processes: the batches and masks of any number of them are the same."""

import contextlib
import json
import re
import shutil

import numpy as np
import pytest

import bertjax
from bertjax.config import to_dict
from bertjax.training.budget.record import FILE as BUDGET_FILE
from bertjax.training.logs.metrics_log import read_entries
from tests.multihost.processes import start
from tests.tiny_library import write_library

pytestmark = pytest.mark.slow

PHASES = (
    "steps=3 data.mlm_probability=0.3 data.mlm_probability_to=0.15",
    "steps=3 data.prepared_dir=prepared/packed data.max_seq_length=16"
    " data.max_sequences_per_row=3 data.max_predictions_per_seq=6 model.rotary_base=160000",
    "steps=2 data.mixture=long=prepared/long,again=prepared/long data.mixture_weights=1,3"
    " data.max_seq_length=32 data.max_sequences_per_row=1 data.max_predictions_per_seq=12"
    " data.mlm_probability=0.1",
    "optimizer.schedule=sqrt train.batch_size=16",
)
"""Mask rate; length, packing and base; mixture; decay and batch: they end at 3, 6, 8 and 10."""
BOUNDARIES = (3, 6, 8)
STEPS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    with contextlib.chdir(write_library(folder)):
        base = bertjax.load_config("tiny.py").replace(
            data={
                "dynamic_masking": True, "masking": "token", "sentence_objective": "none",
                "prepared_dir": "prepared/long", "max_predictions_per_seq": 12,
            },
            model={"positions": "rotary", "heads": ("mlm",)},
            optimizer={"schedule": "constant", "warmup_steps": 2},
            train={
                "steps": STEPS, "save_every_steps": 1, "eval_every_steps": 50,
                "keep_checkpoints": 12,
            },
        )  # fmt: skip
        bertjax.prepare(base)
        vocabulary = {"vocab_file": "prepared/long/tokenizer/vocab.txt"}
        packed = {
            "prepared_dir": "prepared/packed", "max_seq_length": 16, "max_sequences_per_row": 3,
            "max_predictions_per_seq": 6,
        }  # fmt: skip
        bertjax.prepare(base.replace(data=packed, tokenizer=vocabulary))
        for name, mesh in MESHES.items():
            config = base.replace(phases=PHASES, mesh=mesh)
            (folder / f"{name}.json").write_text(json.dumps(to_dict(config)))
        return folder


MESHES = {"one": {"data": 1}, "rows": {"data": 2}, "parameters": {"data": 1, "fsdp": 2}}


def trained(folder, mesh, run, count, killed_at=0):
    """Train in `count` processes of a device each; return their statuses."""
    batches = folder / f"{run}-batches"
    batches.mkdir(exist_ok=True)
    words = ["tests.multihost.watched_run", folder / f"{mesh}.json", folder / run, batches]
    place = folder / f"{run}-{mesh}-{count}-{killed_at}"
    # Paths of the prepared folders are relative.
    place.mkdir()
    (place / "prepared").symlink_to(folder / "prepared")
    job = start(place, [*words, *([killed_at] if killed_at else [])], count)
    return job.wait(), "".join(job.said(index) for index in range(count))


def losses(folder, run):
    entries = [each for each in read_entries(folder / run) if each["split"] == "train"]
    assert [entry["step"] for entry in entries] == list(range(1, STEPS + 1))
    return [entry["loss"] for entry in entries]


def same_batches(folder, run, other):
    for step in range(STEPS):
        with (
            np.load(folder / f"{run}-batches" / f"{step}.npz") as made,
            np.load(folder / f"{other}-batches" / f"{step}.npz") as expected,
        ):
            assert set(made.files) == set(expected.files)
            assert {"input_ids", "masked_lm_positions", "masked_lm_ids"} <= set(made.files)
            for name in expected.files:
                assert np.array_equal(made[name], expected[name]), (step, name)


@pytest.fixture(scope="module")
def whole(folder):
    statuses, said = trained(folder, "one", "whole", 1)
    assert statuses == [0], said
    shapes = {}
    for step in range(STEPS):
        with np.load(folder / "whole-batches" / f"{step}.npz") as batch:
            shapes[step] = batch["input_ids"].shape, "pack_ids" in batch.files
    assert shapes[2] == ((8, 32), False)
    assert shapes[4] == ((8, 16), True)
    assert shapes[9] == ((16, 32), False)
    return folder


@pytest.mark.parametrize("boundary,after", [(3, 1), (6, 2), (8, 1)])
def test_two_processes_killed_at_a_boundary_go_on_as_any_number_with_the_same_batches(
    whole, boundary, after
):
    run = f"killed-{boundary}"
    statuses, said = trained(whole, "rows", run, 2, boundary)
    assert statuses == [1, -9], said
    assert re.search("process 0 of 2: ends because it lost process 1 of 2", said)
    # On another mesh too.
    statuses, said = trained(whole, {1: "one", 2: "parameters"}[after], run, after)
    assert statuses == [0] * after, said
    same_batches(whole, run, "whole")
    assert losses(whole, run) == pytest.approx(losses(whole, "whole"), abs=1e-5)


def test_two_processes_agree_on_the_time_that_has_passed_and_one_replays_it(folder, tmp_path):
    config = json.loads((folder / "rows.json").read_text())
    config["phases"] = []
    # On a fast machine its steps end it, on a slow one its time.
    config["train"] |= {"budget": "150s", "steps": 60, "save_every_steps": 20}
    config["optimizer"] |= {"schedule": "linear", "warmup_steps": 50}
    (folder / "timed.json").write_text(json.dumps(config))
    statuses, said = trained(folder, "timed", "timed", 2)
    assert statuses == [0, 0], said
    entries = [each for each in read_entries(folder / "timed") if each["split"] == "train"]
    passed = [entry["budget_passed"] for entry in entries]
    assert len(passed) > 3
    assert passed == sorted(passed)
    assert max(passed[:-1]) < 1
    assert passed[-1] == 1 or entries[-1]["step"] == 60
    # Had the two other fractions, their parameters would not be the same, nor these losses.
    (folder / "alone").mkdir()
    shutil.copy(folder / "timed" / BUDGET_FILE, folder / "alone" / BUDGET_FILE)
    (folder / "timed-one.json").write_text(json.dumps(config | {"mesh": {"data": 1}}))
    statuses, said = trained(folder, "timed-one", "alone", 1)
    assert statuses == [0], said
    again = [each for each in read_entries(folder / "alone") if each["split"] == "train"]
    assert [entry["budget_passed"] for entry in again] == passed
    assert [entry["learning_rate"] for entry in again] == pytest.approx(
        [entry["learning_rate"] for entry in entries], rel=1e-6, abs=1e-12
    )
    assert [entry["loss"] for entry in again] == pytest.approx(
        [entry["loss"] for entry in entries], abs=1e-4
    )
