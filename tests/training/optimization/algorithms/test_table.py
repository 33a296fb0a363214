import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from bertjax.config import MeshConfig, OptimizerConfig, to_dict
from bertjax.config.field_types import field_types
from bertjax.config.optimization.algorithms import HYPERPARAMETERS
from bertjax.errors import UserError
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint
from bertjax.training.checkpoint_files import by_name as leaves_of
from bertjax.training.checkpoint_files import compare, shapes_by_name
from bertjax.training.optimization.algorithms.schedule_free import weights_between
from bertjax.training.optimization.algorithms.table import ALGORITHMS
from bertjax.training.pretraining import pretraining
from bertjax.training.step import (
    abstract_state,
    gradients,
    jit_init,
    jit_train_step,
    state_shardings,
)
from tests.factory import random_batch, small_config
from tests.training.checkpoints import same
from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    start,
)


def test_each_algorithm_has_its_entry_and_its_hyperparameters():
    known = set(typing.get_args(field_types(OptimizerConfig)["algorithm"]))
    assert set(ALGORITHMS) == set(HYPERPARAMETERS) == known


def test_five_updates_of_lion_follow_its_paper():
    params, grads = start()
    weights = names(params)
    m = {name: np.zeros_like(x) for name, x in weights.items()}
    expected = []
    # Algorithm 2 of arXiv 2302.06675.
    for rate, grad in zip(RATES, map(names, grads), strict=True):
        for name, g in grad.items():
            step = np.sign(0.8 * m[name] + 0.2 * g) + decay(name, weights[name])
            weights[name] = weights[name] - rate * step
            m[name] = 0.95 * m[name] + 0.05 * g
        expected.append(dict(weights))
    after, _ = followed(config_of("lion", lion_b1=0.8, lion_b2=0.95), params, grads)
    assert_follows(after, expected)


NEW = ["stable_adamw", "ademamix", "lion", "muon", "sophia", "schedule_free"]
EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)


ONE = MeshConfig(data=1)


def small(algorithm, mesh=ONE, **changes):
    # The rates of sign and of clipped steps are those of every element.
    rate = 1e-3 if algorithm in ("lion", "sophia") else 1e-2
    optimizer = {"algorithm": algorithm, "peak_learning_rate": rate, "schedule": "constant"}
    return small_config(optimizer=optimizer, mesh=mesh, **changes)


def after_steps(config, count=4):
    mesh = make_mesh(config.mesh, jax.devices()[: 8 if config.mesh == EIGHT else 1])
    batch = random_batch(np.random.default_rng(0), 8)
    state = jit_init(config, mesh, pretraining(config)).state()
    step = jit_train_step(config, mesh)
    losses = []
    for _ in range(count):
        state, metrics = step(state, global_batch(mesh, batch, 8))
        losses.append(float(metrics["loss"]))
        assert not metrics["skipped"]
    return state, losses


@pytest.fixture(scope="module")
def on_one():
    return functools.cache(lambda algorithm: after_steps(small(algorithm)))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", NEW)
def test_eight_devices_give_the_state_of_one(on_one, algorithm):
    (one, losses), (many, losses_of_many) = on_one(algorithm), after_steps(small(algorithm, EIGHT))
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, losses_of_many, rtol=1e-4)
    shardings = state_shardings(small(algorithm, EIGHT), make_mesh(EIGHT))
    for leaf, sharding in zip(jax.tree.leaves(many), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    parts = leaves_of(many)
    for name, whole in leaves_of(one).items():
        # A gradient that is 0 by the formula, of keys' biases, is rounding: its sign is arbitrary.
        if not name.endswith("key/bias"):
            np.testing.assert_allclose(parts[name], whole, rtol=1e-3, atol=3e-4, err_msg=name)


@pytest.mark.parametrize("algorithm", NEW)
def test_moments_are_cut_as_their_parameters_are(algorithm):
    mesh = make_mesh(EIGHT)
    state = abstract_state(small(algorithm, EIGHT), mesh)
    params = leaves_of(state.params)
    moments = {"muon": 1, "sophia": 2, "lion": 1, "ademamix": 3}.get(algorithm, 2)
    found = dict.fromkeys(params, 0)
    for name, leaf in leaves_of(state.opt_state).items():
        owner = next((param for param in params if name.endswith(f"/{param}")), None)
        if owner is None:
            assert leaf.size == 1, name
            continue
        found[owner] += 1
        assert leaf.sharding == params[owner].sharding
    for name, count in found.items():
        is_matrix = name.startswith("encoder/layers") and name.endswith("kernel")
        assert count == (2 if algorithm == "muon" and not is_matrix else moments), name


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", NEW)
def test_a_saved_state_goes_on_bit_for_bit(tmp_path, on_one, algorithm):
    config = small(algorithm)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state, _ = on_one(algorithm)
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path), 1)
    checkpoints.save(int(state.step), state, {"config": to_dict(config)}, None)
    checkpoints.close()
    target = abstract_state(config, mesh)
    restored = checkpoint.Checkpoints(epath.Path(tmp_path), 1).restore(int(state.step), target)
    same(restored, state)
    batch = global_batch(mesh, random_batch(np.random.default_rng(1), 8), 8)
    step = jit_train_step(config, mesh)
    copy = jax.tree.map(jnp.copy, state)
    same(step(copy, batch)[0], step(restored, batch)[0])


@pytest.mark.parametrize("algorithm", NEW)
def test_a_state_of_another_algorithm_is_refused_naming_an_array(algorithm):
    mesh = make_mesh(ONE, jax.devices()[:1])
    target = abstract_state(small("adamw"), mesh)
    saved = shapes_by_name(abstract_state(small(algorithm), mesh))
    if algorithm == "stable_adamw":
        # Its state is AdamW's own, and a run is held to its algorithm by its configuration.
        compare(epath.Path("run"), saved, target, ())
        return
    with pytest.raises(UserError, match="opt_state"):
        compare(epath.Path("run"), saved, target, ())


@pytest.mark.slow
def test_the_hessian_of_a_batch_in_parts_is_that_of_the_batch(on_one):
    _, losses = on_one("sophia")
    parts = small("sophia", train={"gradient_accumulation_steps": 2})
    np.testing.assert_allclose(after_steps(parts)[1], losses, rtol=1e-4)


@pytest.mark.slow
def test_a_hessian_that_is_not_finite_skips_the_update(on_one):
    state, _ = on_one("sophia")
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.opt_state)
    before = jax.tree.map(jnp.copy, state._replace(opt_state=broken))
    mesh = make_mesh(ONE, jax.devices()[:1])
    batch = global_batch(mesh, random_batch(np.random.default_rng(1), 8), 8)
    after, metrics = jit_train_step(small("sophia"), mesh)(jax.tree.map(jnp.copy, before), batch)
    assert metrics["skipped"] == 1
    assert np.isfinite(metrics["grad_norm"])
    same(after.params, before.params)
    assert int(after.step) == int(before.step) + 1


@pytest.mark.slow
def test_a_schedule_free_step_takes_its_gradient_between_the_averages_and_the_fast_weights(on_one):
    state, _ = on_one("schedule_free")
    # After few steps the two are too close to each other to be told apart.
    far = jax.tree.map(
        lambda z: z + 0.5 * jnp.cos(jnp.arange(z.size, dtype=z.dtype)).reshape(z.shape),
        state.opt_state.z,
    )
    state = state._replace(opt_state=state.opt_state._replace(z=far))
    config = small("schedule_free")
    batch = random_batch(np.random.default_rng(1), 8)
    mesh = make_mesh(ONE, jax.devices()[:1])
    step = jit_train_step(config, mesh)
    _, metrics = step(jax.tree.map(jnp.copy, state), global_batch(mesh, batch, 8))
    norm = jax.jit(lambda params: optax.tree.norm(gradients(config, params, batch, None)[0]))
    at_averages = float(norm(state.params))
    between = float(norm(weights_between(state.params, state.opt_state, config.optimizer.b1)))
    assert float(metrics["grad_norm"]) == pytest.approx(between, rel=1e-4)
    assert abs(at_averages - between) > 0.01 * between
