import numpy as np
import pytest

from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    start,
)

B1, B2, B3, ALPHA, EPS = 0.9, 0.95, 0.999, 5.0, 1e-3


def rising(t, updates):
    """alpha and b3 of update t, by the equations of section 3 of arXiv 2409.03137."""
    if not updates:
        return ALPHA, B3
    alpha = min(t * ALPHA / updates, ALPHA)
    share = t / updates
    up, down = np.log(B1) * np.log(B3), (1 - share) * np.log(B3) + share * np.log(B1)
    return alpha, min(np.exp(up / down), B3) if t < updates else B3


@pytest.mark.parametrize("updates", [0, 3])
def test_five_updates_follow_the_paper(updates):
    params, grads = start()
    weights = names(params)
    m = {name: np.zeros_like(x) for name, x in weights.items()}
    slow, v = dict(m), dict(m)
    expected = []
    for t, (rate, grad) in enumerate(zip(RATES, map(names, grads), strict=True), 1):
        alpha, b3 = rising(t, updates)
        for name, g in grad.items():
            m[name] = B1 * m[name] + (1 - B1) * g
            slow[name] = b3 * slow[name] + (1 - b3) * g
            v[name] = B2 * v[name] + (1 - B2) * g**2
            above = m[name] / (1 - B1**t) + alpha * slow[name]
            step = above / (np.sqrt(v[name] / (1 - B2**t)) + EPS) + decay(name, weights[name])
            weights[name] = weights[name] - rate * step
        expected.append(dict(weights))
    config = config_of(
        "ademamix",
        b2=B2,
        eps=EPS,
        ademamix_b3=B3,
        ademamix_alpha=ALPHA,
        ademamix_warmup_updates=updates,
    )
    after, _ = followed(config, params, grads)
    assert_follows(after, expected)
