import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, FinetuneConfig, MeshConfig, TrainConfig, to_dict
from bertjax.errors import UserError
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint
from bertjax.training.checkpoint_files import by_name
from bertjax.training.integrity.restoring import restore_ema
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.pretraining import pretraining
from bertjax.training.step import abstract_state, jit_init, jit_train_step
from tests.factory import random_batch, small_config
from tests.training.checkpoints import same
from tests.training.optimization.algorithms.worked import RATES, config_of, names, start

ONE, EIGHT = MeshConfig(data=1), MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize("algorithm", ["adamw", "schedule_free"])
def test_the_average_has_the_weights_of_each_update_and_not_the_first_ones(algorithm):
    changes = {"schedule": "constant"} if algorithm == "schedule_free" else {}
    optimizer = make_optimizer(config_of(algorithm, **changes), 0.8)
    params, grads = start()
    state = optimizer.init(params)
    same(state.ema, params)
    after = []
    for rate, grad in zip(RATES, grads, strict=True):
        steps, state = optimizer.update(grad, state, params, rate=jnp.float32(rate))
        params = jax.tree.map(lambda p, s, rate=rate: p + np.float32(rate) * s, params, steps)
        after.append(names(params))
        weights = 0.8 ** np.arange(len(after) - 1, -1, -1.0)
        for name, ema in names(state.ema).items():
            expected = sum(w * each[name] for w, each in zip(weights, after, strict=True))
            np.testing.assert_allclose(ema, expected / weights.sum(), rtol=1e-5, atol=1e-6)


def test_without_a_decay_the_state_is_the_optimizers_own():
    params, _ = start()
    config = config_of("adamw")
    assert jax.tree.structure(make_optimizer(config, 0.0).init(params)) == jax.tree.structure(
        make_optimizer(config).init(params)
    )


def test_the_average_is_cut_as_the_parameters_are():
    config = small_config(mesh=EIGHT, train={"ema_decay": 0.9})
    state = abstract_state(config, make_mesh(EIGHT))
    averages = by_name(state.opt_state.ema)
    for name, leaf in by_name(state.params).items():
        assert averages[name].sharding == leaf.sharding
        assert averages[name].shape == leaf.shape


def after_steps(mesh, count=3):
    config = small_config(mesh=mesh, train={"ema_decay": 0.5})
    devices = make_mesh(mesh, jax.devices()[: 1 if mesh == ONE else 8])
    state = jit_init(config, devices, pretraining(config)).state()
    step = jit_train_step(config, devices)
    followed = []
    for number in range(count):
        batch = random_batch(np.random.default_rng(number), 8)
        state, _ = step(state, global_batch(devices, batch, 8))
        followed.append(jax.device_get(state.params))
    return config, devices, state, followed


@pytest.mark.slow
def test_steps_average_on_eight_devices_as_on_one_and_a_checkpoint_goes_on(tmp_path):
    config, devices, state, followed = after_steps(ONE)
    _, _, many, _ = after_steps(EIGHT)
    for a, b, first, second, third in zip(
        *(jax.tree.leaves(tree) for tree in (state.opt_state.ema, many.opt_state.ema, *followed)),
        strict=True,
    ):
        expected = (np.float64(first) + 2 * np.float64(second) + 4 * np.float64(third)) / 7
        np.testing.assert_allclose(a, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=3e-4)
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path), 1)
    checkpoints.save(3, state, {"config": to_dict(config)}, None)
    checkpoints.close()
    target = abstract_state(config, devices)
    restored = checkpoint.Checkpoints(epath.Path(tmp_path), 1).restore(3, target)
    same(restored, state)
    same(
        restore_ema(epath.Path(tmp_path) / "checkpoints" / "3", target.params), state.opt_state.ema
    )
    step = jit_train_step(config, devices)
    batch = global_batch(devices, random_batch(np.random.default_rng(9), 8), 8)
    same(step(jax.tree.map(jnp.copy, state), batch)[0], step(restored, batch)[0])
    # A skipped update leaves the average as it was.
    broken = {**batch, "masked_lm_weights": jnp.full_like(batch["masked_lm_weights"], jnp.nan)}
    after, metrics = step(jax.tree.map(jnp.copy, state), broken)
    assert metrics["skipped"] == 1
    same(after.opt_state, state.opt_state)


@pytest.mark.parametrize("make,message", [
    (lambda: TrainConfig(ema_decay=1.0), "train.ema_decay: found 1.0, expected a number from 0 to below 1"),
    (lambda: TrainConfig(ema_decay=-0.1), "train.ema_decay: found -0.1"),
    (lambda: Config(train=TrainConfig(ema_decay=0.9), finetune=FinetuneConfig(tasks=("a:classification=b",), sparsity=0.5)), "train.ema_decay: found 0.9, expected 0, beside finetune.sparsity"),
])  # fmt: skip
def test_what_cannot_be_averaged_is_refused(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)
