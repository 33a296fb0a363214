import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.errors import MismatchError
from bertjax.training import checkpoint
from bertjax.training.integrity.damage import DamagedCheckpointError
from bertjax.training.integrity.record import check_score, read_meta
from bertjax.training.integrity.restoring import check_arrays, restore_params, restore_state
from tests.factory import small_config
from tests.training.checkpoints import (
    change_an_array,
    files_of,
    flip,
    put_other_numbers,
    same,
    target_of,
    without_digests,
)

CUT, REMOVED = "cut", "removed"


def read_all(folder, state, target):
    """Read a checkpoint as a run does that is continued; what it gives is what was saved."""
    check_score(folder)
    same(restore_state(folder, target)[1:], state[1:])  # but the step
    assert read_meta(folder)["config"]["seed"] == small_config().seed
    checkpoints = checkpoint.Checkpoints(folder.parent.parent, 2)
    checkpoints.close()


def damages(files, count):
    """Draws of (file, bit to flip, or what else is done to it); each file is drawn once at least."""
    drawn = random.Random(19)
    for number in range(count):
        path = files[number] if number < len(files) else drawn.choice(files)
        bits = 8 * path.stat().st_size
        kind = drawn.random()
        if bits == 0 or kind < 0.05:
            yield path, REMOVED
        else:
            yield path, CUT if kind < 0.1 else drawn.randrange(bits)


def read_damaged(run, state, target, count):
    """Damage the files of a checkpoint one after another; return how often it was noticed."""
    folder = run / "checkpoints" / "4"
    lines = []
    for path, damage in damages(files_of(folder), count):
        before = path.read_bytes()
        if damage == REMOVED:
            path.unlink()
        elif damage == CUT:
            path.write_bytes(before[: len(before) // 2])
        else:
            flip(path, damage)
        try:
            read_all(folder, state, target)
        except DamagedCheckpointError as error:
            lines.append(str(error))
        finally:
            path.write_bytes(before)
    read_all(folder, state, target)
    for line in lines:
        assert line.startswith(f"{folder}: found ")
        assert "\n" not in line
    return len(lines)


def test_a_damaged_file_gives_the_saved_numbers_or_one_line(run, state, target, capfd):
    assert read_damaged(run, state, target, 16) > 5
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_each_of_many_damages_gives_the_saved_numbers_or_one_line(run, state, target, capfd):
    assert read_damaged(run, state, target, 400) > 150
    assert "Traceback" not in capfd.readouterr().err


def test_other_numbers_are_named_also_on_another_mesh(run):
    """A whole, readable array of other numbers, as where a bit flipped before it was compressed."""
    put_other_numbers(run, 4, "params/pooler/kernel")
    target = target_of(small_config(mesh=MeshConfig(data=2, fsdp=4)))
    folder = run / "checkpoints" / "4"
    message = r"^.*/checkpoints/4: found other values in params/pooler/kernel than were saved"
    with pytest.raises(DamagedCheckpointError, match=message):
        restore_state(folder, target)
    with pytest.raises(DamagedCheckpointError, match=message):
        restore_params(folder, target.params)
    with pytest.raises(DamagedCheckpointError, match=message):
        check_arrays(folder)
    # What is not read is not compared.
    embeddings = {"embeddings": target.params["embeddings"]}
    others = [group for group in target.params if group != "embeddings"]
    restore_params(folder, embeddings, others)


def test_numbers_are_compared_before_they_are_cast(run, target):
    low = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), target.params
    )
    folder = run / "checkpoints" / "4"
    restore_params(folder, low, cast=True)
    put_other_numbers(run, 4, "params/pooler/kernel")
    with pytest.raises(DamagedCheckpointError, match="params/pooler/kernel"):
        restore_params(folder, low, cast=True)


def test_a_target_that_does_not_fit_is_no_damage(run, target):
    folder = run / "checkpoints" / "4"
    with pytest.raises(MismatchError, match="found shape") as refused:
        restore_params(folder, target_of(small_config(model={"hidden_size": 32})).params)
    assert not isinstance(refused.value, DamagedCheckpointError)
    # Three devices cannot share 16 rows evenly: JAX's own error, and the files are whole.
    mesh = jax.make_mesh((3,), ("a",), devices=jax.devices()[:3])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    uneven = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target.params
    )
    with pytest.raises(ValueError, match="evenly divide"):
        restore_params(folder, uneven)


def test_a_checkpoint_without_digests_is_read(run, state, target):
    without_digests(run, 4)
    folder = run / "checkpoints" / "4"
    same(restore_state(folder, target)[1:], state[1:])
    assert not check_arrays(folder)
    for path in files_of(folder):
        if path.parent.name == "d":
            path.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="4: found files that cannot be read"):
        restore_state(folder, target)


def test_all_arrays_are_compared_without_a_target(run):
    assert check_arrays(run / "checkpoints" / "3")
    change_an_array(run, 3)
    with pytest.raises(DamagedCheckpointError, match=r"checkpoints/3: .*none before it"):
        check_arrays(run / "checkpoints" / "3")
    assert np.all(check_arrays(run / "checkpoints" / "4"))
