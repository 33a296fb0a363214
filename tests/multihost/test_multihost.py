"""Runs of several processes on this machine: met, killed, stopped, continued, and compared to the
bit.

The driver is one process of a run without TensorFlow; the command line itself is tried in
`test_commands.py`.
"""

import json
import re
import shutil
import time
from functools import partial

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.config import MeshConfig
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint
from bertjax.training.batch_source import BatchSource
from bertjax.training.evaluate import heldout_evaluator
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from bertjax.training.step import abstract_state
from tests.factory import small_config
from tests.multihost.driver import batches, heldout
from tests.multihost.processes import start
from tests.training.checkpoints import put_other_numbers
from tests.waiting import LIMIT_SECONDS

# One device a process: with two, sums over processes were once seen to differ in their last bit.
DEVICES = 1
STATED_SECONDS = 60  # docs: within which the others end when one is killed
CHANGES = {
    "mesh": {"data": 1, "fsdp": 2},
    # at step 12 the last; the learning rate falls to it
    "train": {
        "steps": 12,
        "save_every_steps": 4,
        "eval_every_steps": 6,
        "log_every_steps": 1,
        "keep_checkpoints": 9,
    },
}


def run(
    folder, name, *, count=2, devices=DEVICES, wait=True, changes=CHANGES, environment=None, **spec
):
    """A job that trains in `folder/run`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"run": str(folder / "run"), "changes": changes, **spec}))
    job = start(
        folder / name, ["tests.multihost.driver", path], count, devices, **(environment or {})
    )
    return (job, job.wait()) if wait else job


def state_of(folder, step, mesh=None):
    """The state at `step` on this test's own devices, of which there are eight."""
    config = small_config(**CHANGES | {"mesh": {"data": 1}})
    mesh = make_mesh(mesh or MeshConfig(data=1), jax.devices()[: 1 if mesh is None else None])
    return checkpoint.Checkpoints(epath.Path(folder) / "run", 9).restore(
        step, abstract_state(config, mesh)
    )


def identical(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def figures(folder, name="run"):
    """The rows of metrics.jsonl without what a clock says."""
    rows = read_entries(epath.Path(folder) / name)
    return [{k: v for k, v in row.items() if not k.endswith("_per_second")} for row in rows]


def alike(rows, others, rel):
    """Whether two runs have the same rows of figures, the numbers to a relative tolerance."""
    pairs = [
        (a, b)
        for row, other in zip(rows, others, strict=True)
        for a, b in zip(row.items(), other.items(), strict=True)
    ]
    return all(
        a == b or (isinstance(a[1], float) and a[1] == pytest.approx(b[1], rel=rel))
        for a, b in pairs
    )


def last_line(job, index):
    return job.said(index).strip().splitlines()[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    job, statuses = run(folder, "whole")
    assert statuses == [0, 0], job.said(0) + job.said(1)
    return folder, job


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """One run that is killed, stopped by SIGTERM, fails and is continued each time: (folder, its
    jobs, what they left).
    """
    folder, said = tmp_path_factory.mktemp("disturbed"), {}
    job = run(folder, "killed", wait=False, faults={"1": {"step": 6, "what": "SIGKILL"}})
    job.processes[1].wait(LIMIT_SECONDS)
    began = time.monotonic()
    said["killed"] = job, job.wait(), time.monotonic() - began
    said["stopped"] = (
        *run(folder, "stopped", faults={"1": {"step": 6, "what": "SIGTERM"}}),
        None,
    )
    # The first waits for something else than the second: nothing but the second's word can end it.
    faults = {"0": {"step": 10, "what": "waits"}, "1": {"step": 10, "what": "user"}}
    said["failed"] = *run(folder, "failed", faults=faults), None
    said["ended"] = *run(folder, "ended"), None
    return folder, said


def test_several_processes_train_what_one_process_trains(undisturbed, tmp_path):
    config = small_config(**CHANGES | {"mesh": {"data": 4, "fsdp": 2}})
    size = config.train.batch_size
    make_evaluator = partial(heldout_evaluator, {"all": heldout})
    train(
        config,
        tmp_path / "run",
        BatchSource(lambda start, rows: batches({}, start, rows, size), make_evaluator),
    )
    alone, together = figures(tmp_path), figures(undisturbed[0])
    assert len(together) == len(alone) == 14
    assert alike(alone, together, 1e-5)
    # The held-out rows fill no batch: 19 of them, in batches of 8.
    assert [row["instances"] for row in together if row["split"] == "validation"] == [19, 19]


def test_each_process_gives_its_rows_also_where_they_are_no_neighbours(tmp_path):
    job, statuses = run(tmp_path, "rows", devices=2, rows=True)
    assert statuses == [0, 0], job.said(0) + job.said(1)
    assert "rows in place" in job.said(0)


def test_only_the_first_process_writes_and_speaks(undisturbed):
    folder, job = undisturbed
    assert {p.name for p in (folder / "run").iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
    }
    assert len(list((folder / "run" / "tensorboard").iterdir())) == 1
    assert [row["step"] for row in figures(folder) if row["split"] == "train"] == list(range(1, 13))
    assert "WARNING:bertjax" not in job.said(1)


def test_a_checkpoint_written_by_two_is_restored_by_one_on_other_meshes(undisturbed):
    folder, _ = undisturbed
    whole = state_of(folder, 12)
    assert int(whole.step) == 12
    assert identical(whole, state_of(folder, 12, MeshConfig(data=2, fsdp=2, tensor=2)))
    assert not identical(whole, state_of(folder, 8))


@pytest.mark.slow
def test_when_one_is_killed_the_other_ends_soon_with_a_line_that_names_it(disturbed):
    job, statuses, seconds = disturbed[1]["killed"]
    assert statuses == [1, -9]
    assert seconds < STATED_SECONDS
    assert re.match(
        r"bertjax: process 0 of 2: ends because it lost process 1 of 2", last_line(job, 0)
    )


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_step_saved(disturbed):
    folder, said = disturbed
    job, statuses, _ = said["stopped"]
    assert statuses == [75, 75], job.said(0) + job.said(1)
    outcomes = [re.search(r"outcome (\d+) True", job.said(i)).group(1) for i in range(2)]
    assert len(set(outcomes)) == 1
    assert (folder / "run" / "checkpoints" / outcomes[0] / "state").exists()
    assert 6 < int(outcomes[0]) < 12


@pytest.mark.slow
def test_a_failure_of_one_is_said_by_all_with_its_index_and_status(disturbed):
    job, statuses, _ = disturbed[1]["failed"]
    assert statuses == [2, 2], job.said(0) + job.said(1)
    assert last_line(job, 1) == "bertjax: process 1 of 2: shard.tfrecord: record 7 is damaged"
    told = "bertjax: process 0 of 2: ends because process 1 of 2 failed: shard.tfrecord: record 7 is damaged"
    assert last_line(job, 0) == told


@pytest.mark.slow
def test_after_all_that_the_run_ends_bit_for_bit_as_the_undisturbed_one(disturbed, undisturbed):
    folder, said = disturbed
    assert said["ended"][1] == [0, 0]
    assert identical(state_of(folder, 12), state_of(undisturbed[0], 12))
    assert figures(folder) == figures(undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 4}, {"fsdp": 4, "data": 1}, {"data": 2, "tensor": 2}, {"data": 1, "fsdp": 2, "tensor": 2}], ids=str)  # fmt: skip
def test_four_processes_on_any_mesh_train_what_one_device_trains(mesh, tmp_path, undisturbed):
    job, statuses = run(tmp_path, "four", count=4, devices=1, changes=CHANGES | {"mesh": mesh})
    assert statuses == [0] * 4, "".join(job.said(i) for i in range(4))
    assert alike(figures(tmp_path), figures(undisturbed[0]), 1e-5)
    whole = state_of(tmp_path, 12)
    assert identical(whole, state_of(tmp_path, 12, MeshConfig(data=1, fsdp=8)))


@pytest.mark.slow
def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path, undisturbed):
    _, statuses = run(tmp_path, "two", faults={"0": {"step": 5, "what": "SIGTERM"}})
    assert statuses == [75, 75]
    job, statuses = run(
        tmp_path, "four", count=4, devices=1, changes=CHANGES | {"mesh": {"fsdp": 4, "data": 1}}
    )
    assert statuses == [0] * 4, "".join(job.said(i) for i in range(4))
    assert alike(figures(tmp_path), figures(undisturbed[0]), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1, 3])
def test_whichever_of_four_is_killed_the_others_end(killed, tmp_path):
    faults = {str(killed): {"step": 3, "what": "SIGKILL"}}
    changes = CHANGES | {"mesh": {"data": 4}}
    job = run(tmp_path, "killed", count=4, devices=1, wait=False, changes=changes, faults=faults)
    job.processes[killed].wait(LIMIT_SECONDS)
    began = time.monotonic()
    statuses = job.wait()
    assert time.monotonic() - began < STATED_SECONDS
    assert statuses == [-9 if i == killed else 1 for i in range(4)]
    for i in {0, 1, 2, 3} - {killed}:
        assert re.match(rf"bertjax: process {i} of 4: ends because it lost ", last_line(job, i)), (
            job.said(i)
        )


@pytest.mark.slow
def test_a_lost_process_is_noticed_also_where_no_connection_breaks(tmp_path):
    """As on a TPU: the first waits for something else, and only the missing heartbeat tells."""
    faults = {"0": {"step": 3, "what": "waits"}, "1": {"step": 3, "what": "SIGKILL"}}
    job = run(tmp_path, "killed", wait=False, faults=faults)
    job.processes[1].wait(LIMIT_SECONDS)
    began = time.monotonic()
    assert job.wait()[0] == 1
    assert time.monotonic() - began < STATED_SECONDS
    assert re.match(
        r"bertjax: process 0 of 2: ends because it lost another process", last_line(job, 0)
    )


@pytest.mark.slow
def test_who_waits_in_vain_for_the_others_says_so(tmp_path):
    job = run(tmp_path, "alone", wait=False, environment={"BERTJAX_START_SECONDS": "3"})
    job.processes[0].kill()
    assert job.wait()[1] == 1
    assert re.search(
        r"process 1 of 2: .* did not all meet at 127.0.0.1:\d+ within 3 s", last_line(job, 1)
    )


@pytest.mark.slow
def test_no_process_holds_the_whole_state_while_it_is_restored(tmp_path):
    """Four processes, each a quarter of 0.37 GB; what comes above its part is buffers."""
    grown = {}
    for doing in ("save", "restore"):
        job = start(tmp_path / doing, ["tests.multihost.memory", tmp_path / "run", doing], 4)
        assert job.wait() == [0] * 4, job.said(0)
        grown[doing] = [json.loads(last_line(job, i)) for i in range(4)]
    for figures in grown["restore"]:
        assert figures["part"] < 0.26 * figures["whole"]
        assert figures["grown"] < 0.6 * figures["whole"], figures


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 1, "fsdp": 2}, {"data": 2}])
def test_two_processes_go_back_from_a_damaged_checkpoint_and_end_where_they_had_ended(
    undisturbed, tmp_path, mesh
):
    """Each has half of every array, or the whole of it."""
    shutil.copytree(undisturbed[0] / "run", tmp_path / "run")
    expected = state_of(tmp_path, 12)
    put_other_numbers(tmp_path / "run", 12, "params/pooler/kernel")
    changes = CHANGES | {"mesh": mesh}
    refusing = changes | {"train": CHANGES["train"] | {"damaged_checkpoint": "refuse"}}
    job, statuses = run(tmp_path, "refused", changes=refusing)
    assert statuses == [2, 2], job.said(0) + job.said(1)
    for index in range(2):
        assert "checkpoints/12: found other values in params/pooler/kernel" in last_line(job, index)
    job, statuses = run(tmp_path, "back", changes=changes)
    assert statuses == [0, 0], job.said(0) + job.said(1)
    assert "12.damaged, and the run goes on from step 8" in job.said(0)
    assert "damaged" not in job.said(1)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"4", "8", "12", "12.damaged"}
    if mesh == CHANGES["mesh"]:
        assert identical(state_of(tmp_path, 12), expected)
    assert alike(figures(tmp_path), figures(undisturbed[0]), 1e-5)
