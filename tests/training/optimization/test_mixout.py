import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.training import step as steps
from bertjax.training.optimization.mixout import FirstValues, keep_first_values, mix
from tests.factory import random_batch, small_config


def trees():
    """Return (first values, parameters), each parameter 1 away from its first value."""
    shape = (64, 64)
    first = {
        "encoder": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(8)},
        "tasks": {"rte": {"kernel": jnp.zeros(4)}},
    }
    return first, jax.tree.map(lambda leaf: leaf + 1.0, first)


def test_weights_go_back_to_their_first_values_with_the_probability_and_the_mean_stays():
    first, params = trees()
    mixed = mix(params, (FirstValues(first),), 0.7, jax.random.key(0))
    kernel = np.asarray(mixed["encoder"]["kernel"])
    # A weight that goes back is (0 - 0.7 * 0) / 0.3; one that stays is 1 / 0.3.
    assert np.unique(kernel).tolist() == pytest.approx([0.0, 1 / 0.3])
    assert (kernel == 0).mean() == pytest.approx(0.7, abs=0.03)
    assert kernel.mean() == pytest.approx(1.0, abs=0.1)
    assert (np.asarray(mixed["encoder"]["bias"]) == 1).all()
    assert (np.asarray(mixed["tasks"]["rte"]["kernel"]) == 1).all()


def test_at_the_first_values_mixing_changes_nothing():
    first, _ = trees()
    shifted = jax.tree.map(lambda leaf: leaf + 0.5, first)
    mixed = mix(shifted, (FirstValues(shifted),), 0.9, jax.random.key(1))
    for a, b in zip(jax.tree.leaves(mixed), jax.tree.leaves(shifted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_first_values_are_kept_through_the_steps_of_a_run():
    config = small_config(optimizer={"mixout": 0.5, "warmup_steps": 0})
    state = jax.jit(lambda: steps.init_state(config))()
    step = jax.jit(lambda s, b: steps.train_step(config, s, b)[0])
    new = step(
        step(state, random_batch(np.random.default_rng(0), 4)),
        random_batch(np.random.default_rng(1), 4),
    )
    (kept,) = [
        leaf
        for leaf in jax.tree.leaves(new.opt_state, is_leaf=lambda x: isinstance(x, FirstValues))
        if isinstance(leaf, FirstValues)
    ]
    for a, b, now in zip(
        jax.tree.leaves(kept.params),
        jax.tree.leaves(state.params),
        jax.tree.leaves(new.params),
        strict=True,
    ):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, now)


def test_without_mixout_nothing_is_kept():
    assert not jax.tree.leaves(keep_first_values(0.0).init({"a": jnp.ones(3)}))
