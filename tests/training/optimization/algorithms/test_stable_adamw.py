import jax
import numpy as np

from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    start,
    tensors,
)


def by_hand(params, grads, b1=0.9, b2=0.95, eps=1e-3):
    """Algorithm 2 of arXiv 2304.13013, tensor by tensor, in float64, and the ratios."""
    weights = names(params)
    m = {name: np.zeros_like(x) for name, x in weights.items()}
    u = {name: np.zeros_like(x) for name, x in weights.items()}
    after, ratios = [], []
    for t, (rate, grad) in enumerate(zip(RATES, map(names, grads), strict=True), 1):
        # The paper corrects the bias through the decay rates.
        hat1 = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        hat2 = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        for name, g in grad.items():
            m[name] = hat1 * m[name] + (1 - hat1) * g
            u[name] = hat2 * u[name] + (1 - hat2) * g**2
            step = m[name] / (np.sqrt(u[name]) + eps) + decay(name, weights[name])
            moved = []
            cut = [tensors(name, x) for x in (weights[name], step, g, u[name])]
            for w, s, g_i, u_i in zip(*cut, strict=True):
                rms = np.sqrt(np.mean(g_i**2 / np.maximum(u_i, eps**2)))
                ratios.append(max(1.0, rms))
                moved.append(w - rate / max(1.0, rms) * s)
            weights[name] = np.stack(moved) if "layers" in name else moved[0]
        after.append(dict(weights))
    return after, ratios


def test_five_updates_follow_the_paper_layer_by_layer():
    params, grads = start()
    expected, ratios = by_hand(params, grads)
    # Both cases occur: rates that are divided, and rates that are not.
    assert max(ratios) > 1.5 > 1 == min(ratios)
    after, _ = followed(config_of("stable_adamw", b2=0.95, eps=1e-3), params, grads)
    assert_follows(after, expected)


def test_steady_gradients_give_adamw():
    params, grads = start()
    # All have one magnitude, so the mean of g^2 / v is 1.
    grads = [jax.tree.map(np.sign, grads[0])] * len(RATES)
    stable, _ = followed(config_of("stable_adamw"), params, grads)
    adamw, _ = followed(config_of("adamw"), params, grads)
    assert_follows(stable, [names(each) for each in adamw])


def test_a_tensor_of_zero_gradients_moves_by_its_decay_alone():
    params, grads = start()
    grads = [jax.tree.map(np.zeros_like, grads[0])] * len(RATES)
    after, _ = followed(config_of("stable_adamw"), params, grads)
    for name, weights in names(after[-1]).items():
        factor = np.prod([1 - decay(name, rate) for rate in RATES])
        np.testing.assert_allclose(weights, factor * names(params)[name], rtol=1e-5)
