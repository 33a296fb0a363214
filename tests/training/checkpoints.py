"""Checkpoints for the tests, saved, damaged and compared."""

import json
from pathlib import Path

import jax
import numpy as np

from bertjax.config import to_dict
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint
from bertjax.training.integrity.record import OWN, with_own_digest
from bertjax.training.step import init_state, state_shardings
from tests.factory import small_config


class KilledError(Exception):
    """The end of a run between two checkpoints."""


def target_of(config):
    """The tree of shapes and shardings of a state."""
    count = config.mesh.data * config.mesh.fsdp
    mesh = make_mesh(config.mesh, jax.devices()[:count])
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(lambda: init_state(config)),
        state_shardings(config, mesh),
    )


def fresh_state(config):
    """A new state, and the tree of its shapes and shardings."""
    target = target_of(config)
    layouts = jax.tree.map(lambda leaf: leaf.sharding, target)
    return jax.jit(lambda: init_state(config), out_shardings=layouts)(), target


def random_state(config):
    """A state of random numbers, which needs no compilation, and the tree of its shapes."""
    target = target_of(config)
    rng = np.random.default_rng(0)

    def numbers(leaf):
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype)
        return jax.device_put(values, leaf.sharding)

    return jax.tree.map(numbers, target), target


def saved(run, rows, keep=2, config=None, make_state=fresh_state):
    """Checkpoints at the steps of `rows`, with their held-out losses."""
    config = config or small_config()
    state, target = make_state(config)
    checkpoints = checkpoint.Checkpoints(run, keep)
    meta = {"config": to_dict(config)}
    for step, loss in rows:
        checkpoints.save(
            step,
            state._replace(step=np.int32(step)),
            meta,
            None if loss is None else {"mlm_loss": loss},
        )
    checkpoints.close()
    return state, target


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(x, y)


def flip(path, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def files_of(folder):
    """All files in a folder, and in its folders."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def change_an_array(run, step):
    """Flip a bit in the middle of the largest file of a checkpoint's arrays."""
    files = [path for path in files_of(run / "checkpoints" / str(step)) if path.parent.name == "d"]
    largest = max(files, key=lambda path: path.stat().st_size)
    flip(largest, largest.stat().st_size * 4)


def put_other_numbers(run, step, name):
    """Give the digests of a checkpoint another sum for an array."""
    path = run / "checkpoints" / str(step) / "state" / "digests.json"
    values = json.loads(path.read_text())
    del values[OWN]
    values["arrays"][name]["sums"][0] ^= 1
    path.write_text(json.dumps(with_own_digest(values)))


def array_sums(run):
    """All arrays of a run's last checkpoint, by name, as their sums."""
    _, folder = checkpoint.find_checkpoint(run)
    return json.loads((folder / "state" / "digests.json").read_text())["arrays"]


def without_digests(run, step):
    """Make a checkpoint one of a version that had no digests."""
    folder = run / "checkpoints" / str(step)
    (folder / "state" / "digests.json").unlink()
    path = folder / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta[OWN]
    path.write_text(json.dumps(meta))
