import os

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.parallel import hosts
from bertjax.parallel.hosts import global_batch, job_arguments, process_row_indices
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_sharding

OTHERS = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "1",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
TIMES = {"initialization_timeout": 300, "heartbeat_timeout_seconds": 45}


def test_one_process_holds_every_row_and_each_device_its_part():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    assert np.array_equal(process_row_indices(mesh, 16), np.arange(16))
    rows = np.arange(48).reshape(16, 3)
    made = global_batch(mesh, {"x": rows}, 16)["x"]
    assert np.array_equal(made, rows)
    assert sorted(shard.data.shape for shard in made.addressable_shards) == [(2, 3)] * 8


@pytest.mark.parametrize("environment,expected", [
    ({}, None),
    ({"JAX_COORDINATOR_ADDRESS": "", "BERTJAX_DISTRIBUTED": "0"}, None),
    (OTHERS | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
    (OTHERS, {"coordinator_address": "10.0.0.1:8476", "num_processes": 4, "process_id": 1,
              "cluster_detection_method": "deactivate"} | TIMES),
    ({"BERTJAX_DISTRIBUTED": "1"}, TIMES),
    ({"BERTJAX_DISTRIBUTED": "1", "BERTJAX_START_SECONDS": "9", "BERTJAX_HEARTBEAT_SECONDS": "8"},
     {"initialization_timeout": 9, "heartbeat_timeout_seconds": 8}),
    (SLURM, {"cluster_detection_method": "slurm"} | TIMES),
    (SLURM | {"SLURM_NTASKS": "1"}, None),
    (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, None),
])  # fmt: skip
def test_a_job_of_several_processes_is_described_by_the_environment(environment, expected):
    assert job_arguments(environment) == expected


@pytest.mark.parametrize("change,message", [
    ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID: found 4, expected a whole number from 0 to 3"),
    ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID: found -1, expected"),
    ({"JAX_PROCESS_ID": "two"}, "JAX_PROCESS_ID: found two, expected"),
    ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID: found nothing, expected a value, as JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES is set"),
    ({"JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID: found nothing"),
    ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES: found 0, expected"),
    ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "JAX_COORDINATOR_ADDRESS: found 10.0.0.1, expected HOST:PORT"),
    ({"BERTJAX_HEARTBEAT_SECONDS": "soon"}, "BERTJAX_HEARTBEAT_SECONDS: found soon, expected a whole number from 5"),
    ({"BERTJAX_START_SECONDS": "0"}, "BERTJAX_START_SECONDS: found 0"),
])  # fmt: skip
def test_variables_that_make_no_sense_are_named(change, message):
    with pytest.raises(UserError, match=message):
        job_arguments(OTHERS | change)


def test_alone_nothing_is_started_and_the_signal_decides():
    hosts.start({})
    assert not jax.distributed.is_initialized()
    assert (hosts.is_multiprocess(), hosts.is_first()) == (False, True)
    assert [hosts.should_stop_after(3, signalled) for signalled in (False, True)] == [False, True]
    assert hosts.from_first("x") == "x"
    assert hosts.to_first("x") == ["x"]
    assert [hosts.agree(value) for value in (False, True)] == [False, True]


@pytest.fixture(scope="module")
def slice_devices():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return lambda name: topologies.get_topology_desc(platform="tpu", topology_name=name).devices


@pytest.mark.parametrize("name,axes", [
    ("v5e:16x16", {"data": 256}),
    ("v5e:16x16", {"data": 16, "fsdp": 16}),
    ("v5e:16x16", {"data": 16, "fsdp": 4, "tensor": 4}),
    ("v5e:16x16", {"fsdp": 16, "data": 1, "tensor": 16}),
    ("v5e:4x4", {"data": 4, "fsdp": 2, "tensor": 2}),
    ("v5p:4x4x8", {"data": 128}),
    ("v6e:16x16", {"fsdp": 256, "data": 1}),
    ("v3:4x4", {"data": 32}),
])  # fmt: skip
def test_on_every_slice_each_process_reads_the_rows_of_its_chips_and_no_others(
    slice_devices, name, axes
):
    """The hosts and chips are those of real slices.

    tests/multihost shows what JAX does with such rows.
    """
    devices = slice_devices(name)
    mesh, size = make_mesh(MeshConfig(**axes), devices), 512
    read = {p: process_row_indices(mesh, size, p) for p in {d.process_index for d in devices}}
    held = {p: set() for p in read}
    for device, index in batch_sharding(mesh).devices_indices_map((size,)).items():
        held[device.process_index] |= set(range(size)[index[0]])
    for p, rows in read.items():
        assert rows.tolist() == sorted(held[p])
    assert set().union(*held.values()) == set(range(size))
    if "tensor" not in axes:
        assert sum(len(rows) for rows in read.values()) == size


def test_a_hosts_rows_are_not_always_neighbours(slice_devices):
    mesh = make_mesh(MeshConfig(data=256), slice_devices("v5e:16x16"))
    assert any(np.any(np.diff(process_row_indices(mesh, 256, p)) > 1) for p in range(64))
