import jax
import numpy as np
import pytest

from bertjax.model import functional
from bertjax.training.optimization.algorithms.muon import MATRIX, kinds, orthogonalized
from tests.factory import SMALL_MODEL
from tests.training.optimization.algorithms.worked import (
    RATES,
    assert_follows,
    config_of,
    decay,
    followed,
    names,
    start,
)


def newton_schulz(matrix):
    """Five iterations as Muon's author describes them, of one matrix, in float64."""
    x = matrix / (np.linalg.norm(matrix) + 1e-7)
    if x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def muon_step(momentum, rms=0.2):
    return rms * np.sqrt(max(momentum.shape)) * newton_schulz(momentum)


def test_five_updates_follow_muon_on_each_layer_and_adamw_on_the_rest():
    params, grads = start()
    weights = names(params)
    m = {name: np.zeros_like(x) for name, x in weights.items()}
    v = {name: np.zeros_like(x) for name, x in weights.items()}
    # Inputs by outputs: of queries 4 by 2 x 3, of the output 2 x 3 by 4.
    matrices = {
        "encoder/layers/attention/query/kernel": (4, 6),
        "encoder/layers/attention/output/kernel": (6, 4),
    }
    expected = []
    for t, (rate, grad) in enumerate(zip(RATES, map(names, grads), strict=True), 1):
        for name, g in grad.items():
            if name in matrices:
                m[name] = 0.9 * m[name] + g
                nesterov = g + 0.9 * m[name]
                layers = [muon_step(layer.reshape(matrices[name])) for layer in nesterov]
                step = np.stack(layers).reshape(g.shape)
            else:
                m[name] = 0.8 * m[name] + 0.2 * g
                v[name] = 0.9 * v[name] + 0.1 * g**2
                step = m[name] / (1 - 0.8**t) / (np.sqrt(v[name] / (1 - 0.9**t)) + 1e-3)
            weights[name] = weights[name] - rate * (step + decay(name, weights[name]))
        expected.append(dict(weights))
    config = config_of("muon", muon_momentum=0.9, b1=0.8, b2=0.9, eps=1e-3)
    after, _ = followed(config, params, grads)
    assert_follows(after, expected)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 6, 20), (3, 20, 6)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape):
    matrices = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    matrices *= np.array([1e-3, 1.0, 1e3], np.float32)[:, None, None]
    for before, after in zip(matrices, orthogonalized(matrices), strict=True):
        u, s, v = np.linalg.svd(before, full_matrices=False)
        inside = u.T @ np.asarray(after) @ v.T
        big = s > 0.05 * s.max()
        assert np.all((np.diag(inside)[big] > 0.6) & (np.diag(inside)[big] < 1.3))
        assert np.abs(inside - np.diag(np.diag(inside))).max() < 2e-3
    # The root-mean-square of a step does not depend on the shape: 1 / sqrt(max(in, out)).
    rms = np.sqrt(np.mean(np.square(orthogonalized(matrices)), (1, 2)))
    assert np.allclose(rms * np.sqrt(max(shape[1:])), 0.9, atol=0.25)


def test_a_matrix_of_zeros_stays_zero_and_another_layer_does_not_feel_it():
    matrices = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    alone = orthogonalized(matrices[1:])
    matrices[0] = 0
    both = np.asarray(orthogonalized(matrices))
    assert not both[0].any()
    np.testing.assert_allclose(both[1:], alone, rtol=1e-5)


def test_the_kernels_of_the_layers_are_matrices_and_nothing_else_is():
    params = functional.shapes(SMALL_MODEL)
    found = set()
    for path, kind in jax.tree_util.tree_leaves_with_path(kinds(params)):
        if kind == MATRIX:
            found.add(jax.tree_util.keystr(path, simple=True, separator="/"))
    parts = ("attention/query", "attention/key", "attention/value", "attention/output")
    assert found == {f"encoder/layers/{part}/kernel" for part in (*parts, "mlp/up", "mlp/down")}


def test_a_matrix_has_one_moment_and_another_parameter_two():
    params, grads = start()
    _, state = followed(config_of("muon"), params, grads)
    sizes = {name: leaf.size for name, leaf in names(params).items()}
    matrices = sum(size for name, size in sizes.items() if "layers" in name and "kernel" in name)
    # One more number: the count of Adam's updates.
    held = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert held == matrices + 2 * (sum(sizes.values()) - matrices) + 1
