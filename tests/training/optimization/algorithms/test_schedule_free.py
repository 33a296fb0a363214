import jax
import numpy as np
import pytest

from bertjax.training.optimization.algorithms.schedule_free import weights_between
from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    start,
)

FREE = config_of("schedule_free", schedule="constant", b2=0.95, eps=1e-3)


def by_hand(params, grads, b1=0.9, b2=0.95, eps=1e-3):
    """Algorithm 1 of arXiv 2405.15682 in float64: the averages x after each update."""
    x = names(params)
    z, v = dict(x), {name: np.zeros_like(each) for name, each in x.items()}
    total, after = 0.0, []
    for t, (rate, grad) in enumerate(zip(RATES, map(names, grads), strict=True), 1):
        gamma = rate * np.sqrt(1 - b2**t)
        total += gamma**2
        c = gamma**2 / total if total else 0.0
        for name, g in grad.items():
            y = (1 - b1) * z[name] + b1 * x[name]
            v[name] = b2 * v[name] + (1 - b2) * g**2
            step = g / (np.sqrt(v[name]) + eps) + decay(name, y)
            z[name] = z[name] - gamma * step
            x[name] = (1 - c) * x[name] + c * z[name]
        after.append(dict(x))
    return after


def test_five_updates_follow_the_paper_and_the_parameters_are_the_averages():
    params, grads = start()
    after, _ = followed(FREE, params, grads)
    assert_follows(after, by_hand(params, grads))


def test_gradients_are_taken_between_the_average_and_the_fast_weights():
    params, grads = start()
    after, state = followed(FREE, params, grads)
    between = names(weights_between(after[-1], state, 0.9))
    x, z = names(after[-1]), names(state.z)
    for name, y in between.items():
        np.testing.assert_allclose(y, 0.9 * x[name] + 0.1 * z[name], rtol=1e-5, atol=1e-7)

    def loss(params):
        leaves = jax.tree.leaves(weights_between(params, state, 0.9))
        return sum((leaf**2).sum() for leaf in leaves) / 2

    # The gradient by y itself, as the paper has it, and not 0.9 times it.
    for name, gradient in names(jax.grad(loss)(after[-1])).items():
        np.testing.assert_allclose(gradient, between[name], rtol=1e-5)


def test_frozen_parameters_stay_to_the_bit_and_lower_layers_move_less():
    params, grads = start()
    config = config_of(
        "schedule_free", schedule="constant", freeze="embeddings", layer_decay=0.1, weight_decay=0.0
    )
    after, _ = followed(config, params, grads)
    assert np.array_equal(
        after[-1]["embeddings"]["word"]["embedding"], params["embeddings"]["word"]["embedding"]
    )
    name = "encoder/layers/attention/query/kernel"
    low, high = np.abs(names(after[-1])[name] - names(params)[name]).reshape(2, -1).mean(1)
    assert low == pytest.approx(0.1 * high, rel=0.5)
