import jax
import jax.numpy as jnp
import numpy as np

from bertjax.training.optimization.algorithms.sophia import hutchinson
from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    random_tree,
    start,
)


def test_five_updates_follow_the_paper_with_an_estimate_every_second_time():
    params, grads = start()
    rng = np.random.default_rng(1)
    # Of both signs, as estimates of a real loss.
    estimates = [random_tree(rng, 30.0) for _ in range(3)]
    weights = names(params)
    m = {name: np.zeros_like(x) for name, x in weights.items()}
    h = {name: np.zeros_like(x) for name, x in weights.items()}
    expected, clipped = [], []
    for t, (rate, grad) in enumerate(zip(RATES, map(names, grads), strict=True), 1):
        for name, g in grad.items():
            m[name] = 0.9 * m[name] + 0.1 * g
            if t % 2 == 1:
                h[name] = 0.8 * h[name] + 0.2 * names(estimates[t // 2])[name]
            step = np.clip(m[name] / np.maximum(0.05 * h[name], 1e-12), -1, 1)
            clipped.append(np.mean(np.abs(step) == 1))
            weights[name] = weights[name] - rate * (step + decay(name, weights[name]))
        expected.append(dict(weights))
    assert 0.1 < np.mean(clipped) < 0.95
    config = config_of("sophia", sophia_b1=0.9, sophia_b2=0.8, sophia_gamma=0.05, sophia_interval=2)
    asked = iter([estimates[0], None, estimates[1], None, estimates[2]])

    def hessian_diagonal(_):
        estimate = next(asked)
        # Not to be used between: it would be seen.
        nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), params)
        return lambda: nothing if estimate is None else jax.tree.map(jnp.asarray, estimate)

    after, _ = followed(config, params, grads, hessian_diagonal=hessian_diagonal)
    assert_follows(after, expected)


def test_the_estimates_add_up_to_the_diagonal_of_the_hessian():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    matrix = (matrix + matrix.T).astype(np.float32)
    params = {"a": jnp.ones(2), "b": jnp.ones(4)}

    def gradient(params):
        x = jnp.concatenate([params["a"], params["b"]])
        return dict(zip("ab", jnp.split(matrix @ x, [2]), strict=True))

    keys = jax.random.split(jax.random.key(0), 20_000)
    estimates = jax.vmap(lambda key: hutchinson(gradient, params, key))(keys)
    found = np.concatenate([np.mean(estimates[name], 0) for name in "ab"])
    # The variance of an estimate is 2 h_ii^2 + the sum of h_ij^2.
    deviation = np.sqrt((matrix**2).sum(1) + np.diag(matrix) ** 2) / np.sqrt(len(keys))
    assert np.all(np.abs(found - np.diag(matrix)) < 5 * deviation)
