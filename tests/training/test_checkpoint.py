import concurrent.futures
import dataclasses
import os
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from bertjax.config import MeshConfig, to_dict
from bertjax.errors import UserError
from bertjax.storage import LockError
from bertjax.storage.guards import guarded
from bertjax.training import checkpoint
from tests.factory import small_config
from tests.training.checkpoints import fresh_state, same, saved


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path) / "run"


def steps(run):
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def test_the_last_ones_and_the_best_are_kept_also_over_a_restart(run):
    saved(run, [(1, 5.0), (2, 3.0), (3, 4.0), (4, None), (5, 6.0)])
    assert steps(run) == [2, 4, 5]
    saved(run, [(6, 3.5), (7, 2.5), (8, 9.0), (9, 9.0)])
    assert steps(run) == [7, 8, 9]


def test_of_equally_good_checkpoints_the_latest_is_kept(run):
    saved(run, [(1, 3.0), (2, 3.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 5.0)])
    assert steps(run) == [3, 5, 6]


def test_a_state_comes_back_as_it_was_on_any_mesh(run):
    state, _ = saved(run, [(3, 1.0)])
    for mesh in (MeshConfig(data=1), MeshConfig(data=2, fsdp=4)):
        _, target = fresh_state(small_config(mesh=mesh))
        restored = checkpoint.Checkpoints(run, 2).restore(3, target)
        same(restored.params, state.params)
        same(restored.opt_state, state.opt_state)
        assert int(restored.step) == 3
        for leaf, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(target), strict=True):
            assert leaf.sharding == expected.sharding


def test_parameters_alone_and_their_configuration_are_read_from_a_run_or_a_step(run):
    state, target = saved(run, [(3, 1.0), (4, 1.0)])
    for path, step in [(run, 4), (run / "checkpoints" / "3", 3)]:
        run_dir, folder = checkpoint.find_checkpoint(path)
        assert (run_dir, folder) == (run, run / "checkpoints" / str(step))
        same(checkpoint.restore_params(folder, target.params), state.params)
        assert checkpoint.read_checkpoint_config(folder) == small_config()


@pytest.mark.parametrize("model,message", [
    ({"hidden_size": 32}, r"params/embeddings/\w+/\w+: found shape \[(16|64, 16|16, 16)\], expected shape"),
    ({"num_hidden_layers": 3}, r"params/encoder/layers/.*: found shape \[2, .*\], expected shape \[3, "),
])  # fmt: skip
def test_a_checkpoint_of_another_shape_is_refused_naming_the_tensor(run, model, message):
    saved(run, [(3, 1.0)])
    _, target = fresh_state(small_config(model=model))
    with pytest.raises(UserError, match=message):
        checkpoint.Checkpoints(run, 2).restore(3, target)
    with pytest.raises(UserError, match=message):
        checkpoint.restore_params(run / "checkpoints" / "3", target.params)


def test_missing_and_extra_and_mistyped_tensors_are_named(run):
    _, target = saved(run, [(3, 1.0)])
    folder = run / "checkpoints" / "3"
    more = dict(target.params, extra=target.params["pooler"])
    with pytest.raises(UserError, match="params/extra/bias: found no such tensor"):
        checkpoint.restore_params(folder, more)
    fewer = {name: leaf for name, leaf in target.params.items() if name != "nsp"}
    with pytest.raises(
        UserError, match="found the tensor params/nsp/bias, expected none of that name"
    ):
        checkpoint.restore_params(folder, fewer)
    low = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, np.float16, sharding=x.sharding), target.params
    )
    with pytest.raises(UserError, match="found float32, expected float16"):
        checkpoint.restore_params(folder, low)


def test_parameters_are_cast_as_they_are_read_where_asked(run):
    state, target = saved(run, [(3, 1.0)])
    low = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), target.params
    )
    restored = checkpoint.restore_params(run / "checkpoints" / "3", low, cast=True)
    same(restored, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params))
    for leaf, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(low), strict=True):
        assert (leaf.dtype, leaf.sharding) == (jnp.bfloat16, expected.sharding)


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, target = saved(epath.Path("run"), [(3, 1.0)])
    same(checkpoint.Checkpoints(epath.Path("run"), 2).restore(3, target).params, state.params)
    _, folder = checkpoint.find_checkpoint("run")
    same(checkpoint.restore_params(folder, target.params), state.params)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UserError, match="found no checkpoint, expected a run folder"):
        checkpoint.find_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_checkpoint_is_named(run, damage):
    _, target = saved(run, [(3, 1.0)])
    state = run / "checkpoints" / "3" / "state"
    files = [os.path.join(root, name) for root, _, names in os.walk(state) for name in names]
    for path in files:
        if os.path.basename(os.path.dirname(path)) == "d":  # where the arrays' bytes are
            os.truncate(path, 1) if damage == "truncate" else os.remove(path)
    with pytest.raises(UserError, match=r"checkpoints/3"):
        checkpoint.Checkpoints(run, 2).restore(3, target)


def test_a_save_that_is_refused_leaves_no_thread_that_waits(run):
    """Orbax's threads would wait 300 s for a folder that is never made, and the process for them."""
    config = small_config()
    state, _ = fresh_state(config)
    checkpoints = checkpoint.Checkpoints(run, 2)
    checkpoints.save(1, state, {"config": to_dict(config)}, None)
    checkpoints.wait()
    (run / "checkpoints").rmtree()
    (run / "checkpoints").write_text("")  # to root too, no folder to write into
    before = set(threading.enumerate())
    with pytest.raises(UserError, match=r"checkpoints: cannot be .*Not a directory"):
        checkpoints.save(2, state, {"config": to_dict(config)}, None)
    # Without the idle workers of pools, which end with the process.
    threads = set(threading.enumerate()) - before - set(concurrent.futures.thread._threads_queues)
    for thread in threads:
        thread.join(timeout=5)
    assert not [thread for thread in threads if thread.is_alive() and not thread.daemon]


class LockThatIsLost:
    """A lock that is held for a number of checks, and another process's then."""

    def __init__(self, checks):
        self.left = checks

    @property
    def lost(self):
        return self.left <= 0

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise LockError("run: found another at work on it")


def test_a_save_begun_under_a_lock_gets_no_name_when_the_lock_is_lost_meanwhile(run):
    # One check when the save begins, one when it is written.
    with (
        guarded(run, LockThatIsLost(1)),
        pytest.raises(LockError, match="^run: found another at work on it$"),
    ):
        saved(run, [(1, 1.0)])
    assert steps(run) == []
    with guarded(run, LockThatIsLost(2)):
        saved(run, [(1, 1.0)])
    assert steps(run) == [1]


def test_an_update_asks_whether_the_lock_is_known_to_be_lost(run):
    lock = LockThatIsLost(1)
    with guarded(run, lock):
        checkpoints = checkpoint.Checkpoints(run, 2)
        checkpoints.check()
        assert lock.left == 1
        lock.left = 0
        with pytest.raises(LockError):
            checkpoints.check()
        checkpoints.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_whole_checkpoints_stay_usable(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    model = dataclasses.replace(small_config().model, hidden_size=64, vocab_size=4096)
    config = small_config(model=model)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        run = epath.Path(disk) / "run"
        with pytest.raises(UserError, match=r"the disk is full, .*whole checkpoints there: 1"):
            saved(run, [(step, 1.0) for step in range(1, 9)], keep=9, config=config)
        state, target = fresh_state(config)
        again = checkpoint.Checkpoints(run, 9)
        same(again.restore(1, target).params, state.params)
        assert again.latest() < 8
    finally:
        subprocess.run(["umount", str(disk)], check=True)
