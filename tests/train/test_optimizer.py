import jax
import numpy as np

from bertjax.config import OptimizerConfig
from bertjax.model import functional
from bertjax.train.optimizer import decay_mask, make_optimizer
from tests.factory import SMALL_MODEL


def test_weight_decay_spares_biases_and_layer_norms_also_when_stacked():
    params = functional.init(SMALL_MODEL, jax.random.key(0))
    for path, decays in jax.tree_util.tree_leaves_with_path(decay_mask(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert decays == (not name.endswith(("bias", "scale"))), name


def test_three_updates_follow_adamw_worked_by_hand():
    config = OptimizerConfig(b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.1, max_grad_norm=1.0)
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    state = optimizer.init(params)
    m = v = dict.fromkeys(params, 0.0)
    for t in range(1, 4):
        grads = {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32)}
        updates, state = optimizer.update(grads, state, params)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        clipped = {k: g * min(1.0, 1.0 / norm) for k, g in grads.items()}
        m = {k: 0.8 * m[k] + 0.2 * g for k, g in clipped.items()}
        v = {k: 0.9 * v[k] + 0.1 * g**2 for k, g in clipped.items()}
        for k in params:
            adam = (m[k] / (1 - 0.8**t)) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-6)
            decay = 0.1 * params[k] if k == "kernel" else 0.0
            assert np.allclose(updates[k], -(adam + decay), rtol=1e-4, atol=1e-6)
        params = jax.tree.map(lambda p, u: p + 0.01 * u, params, updates)
