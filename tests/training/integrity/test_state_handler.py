import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.training import checkpoint
from bertjax.training.integrity.array_sums import part_sums
from bertjax.training.integrity.parts import sums_by_copy, sums_of
from bertjax.training.integrity.record import SavedArray, read_saved_arrays
from bertjax.training.integrity.restoring import check_arrays
from bertjax.training.integrity.state_handler import _noted_copies, _saved_parts

MESHES = {(1, 1): PartitionSpec(), (8, 1): PartitionSpec(), (2, 4): PartitionSpec("b")}


def test_each_array_has_its_sums_beside_it_whichever_mesh_saves(tmp_path):
    values = np.random.default_rng(0).standard_normal((16, 8), np.float32)
    for number, (shape, spec) in enumerate(MESHES.items()):
        mesh = jax.make_mesh(shape, ("a", "b"), devices=jax.devices()[: shape[0] * shape[1]])
        params = {"kernel": jax.device_put(values, NamedSharding(mesh, spec))}
        checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path) / f"run{number}", keep=1)
        checkpoints.save(3, {"params": params}, {}, None)
        checkpoints.close()
        folder = checkpoints.folder / "3"
        expected = SavedArray((16, 8), "float32", tuple(part_sums(values, (0, 0)).tolist()))
        assert read_saved_arrays(folder) == {"params/kernel": expected}
        # Nothing is left of what the processes told each other.
        assert not (folder / "state" / "digests").exists()


def test_the_next_step_may_take_the_memory_of_what_is_being_saved(tmp_path):
    values = np.random.default_rng(0).standard_normal((1024, 512), np.float32)
    step = jax.jit(lambda array: array * 2, donate_argnums=0)
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path) / "run", keep=1)
    array = jax.device_put(values)
    checkpoints.save(1, {"params": {"kernel": array}}, {}, None)
    for _ in range(20):
        array = step(array)
    checkpoints.close()
    folder = checkpoints.folder / "1"
    assert check_arrays(folder)
    found = read_saved_arrays(folder)["params/kernel"]
    assert found.sums == tuple(part_sums(values, (0, 0)).tolist())


def test_numbers_of_the_host_have_sums_too(tmp_path):
    """Imported models are saved as NumPy arrays."""
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path) / "run", keep=1)
    params = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}
    checkpoints.save(0, {"step": 0, "params": params}, {}, None)
    checkpoints.close()
    assert check_arrays(checkpoints.folder / "0")
    found = read_saved_arrays(checkpoints.folder / "0")
    assert found.keys() == {"step", "params/kernel"}
    assert found["params/kernel"].sums == tuple(sums_by_copy([params["kernel"]])[0][0])


def test_sums_are_those_of_the_copies_that_orbax_has_made_anyway(tmp_path):
    """Else a save would hold up training for a second copy from the devices."""
    mesh = jax.make_mesh((2, 4), ("a", "b"))
    values = np.random.default_rng(0).standard_normal((16, 8), np.float32)
    array = jax.device_put(values, NamedSharding(mesh, PartitionSpec("a")))
    with _noted_copies() as copies, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", {"kernel": array})
    # Each replica saves a part of its shard.
    assert [len(copy.replica_slices) for copy in copies] == [8]
    assert (sums_of(_saved_parts(array, copies[0])) == sums_by_copy([array])[0][0]).all()
    # With a version of Orbax that makes none that are known.
    assert (sums_of(_saved_parts(array, array)) == sums_by_copy([array])[0][0]).all()
