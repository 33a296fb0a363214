import jax
import numpy as np
import pytest

from bertjax.config import OptimizerConfig
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.model import functional
from bertjax.training.optimization.optimizer import decay_mask, make_optimizer
from tests.factory import SMALL_MODEL
from tests.families.tiny import tiny


def test_weight_decay_spares_biases_and_layer_norms_also_when_stacked():
    params = functional.init(SMALL_MODEL, jax.random.key(0))
    for path, decays in jax.tree_util.tree_leaves_with_path(decay_mask(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert decays == (not name.endswith(("bias", "scale"))), name


def test_what_decays_of_gpt_bert_is_what_its_authors_let_decay():
    params = functional.init(tiny("gpt_bert"), jax.random.key(0))
    name_of = torch_dialect("gpt_bert").name
    decays = {}
    for path, decayed in jax.tree_util.tree_leaves_with_path(decay_mask(params)):
        decays[name_of(jax.tree_util.keystr(path, simple=True, separator="/"))] = decayed
    # The rule of their training scripts, by the names that their parameters have.
    assert decays == {
        name: not any(part in name for part in ("bias", "layer_norm")) for name in decays
    }
    assert decays["transformer.dwa_modules.alphas.{}"]
    assert decays["embedding.relative_embedding"]
    assert not decays["embedding.relative_layer_norm.weight"]


def test_three_updates_follow_adamw_worked_by_hand():
    config = OptimizerConfig(b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.1, max_grad_norm=1.0)
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    state = optimizer.init(params)
    m = v = dict.fromkeys(params, 0.0)
    for t in range(1, 4):
        grads = {
            "kernel": rng.normal(size=(3, 2)).astype(np.float32),
            "bias": rng.normal(size=2).astype(np.float32),
        }
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


def worked(algorithm, grads_of, params, updates=3, b1=0.8, b2=0.9, eps=1e-6, decay=0.1):
    """Steps by the formulas, in float64: a list of trees, the parameters moved by 0.01 of each."""
    m = v = dict.fromkeys(params, 0.0)
    params = {k: np.float64(p) for k, p in params.items()}
    steps = []
    for t in range(1, updates + 1):
        grads = {k: np.float64(g) for k, g in grads_of(t).items()}
        m = {k: b1 * m[k] + (1 - b1) * g for k, g in grads.items()}
        v = {k: b2 * v[k] + (1 - b2) * g**2 for k, g in grads.items()}
        step = {}
        for k, p in params.items():
            corrected = (
                (m[k], v[k]) if algorithm == "bert" else (m[k] / (1 - b1**t), v[k] / (1 - b2**t))
            )
            step[k] = corrected[0] / (np.sqrt(corrected[1]) + eps) + (
                decay * p if k != "bias" else 0.0
            )
            if algorithm == "lamb" and k != "bias":
                step[k] = step[k] * np.linalg.norm(p) / np.linalg.norm(step[k])
        steps.append({k: -x for k, x in step.items()})
        params = {k: p + 0.01 * steps[-1][k] for k, p in params.items()}
    return steps


@pytest.mark.parametrize("algorithm", ["adamw", "bert", "lamb"])
def test_each_algorithm_follows_its_formula(algorithm):
    rng = np.random.default_rng(1)
    params = {
        "kernel": rng.normal(size=(3, 2)).astype(np.float32),
        "bias": rng.normal(size=2).astype(np.float32),
    }
    grads = [
        jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
        for _ in range(3)
    ]
    expected = worked(algorithm, lambda t: grads[t - 1], params)
    config = OptimizerConfig(
        algorithm=algorithm, b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.1, max_grad_norm=0
    )
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for grad, step in zip(grads, expected, strict=True):
        updates, state = optimizer.update(grad, state, params)
        assert all(np.allclose(updates[k], step[k], rtol=1e-4, atol=1e-6) for k in params)
        params = jax.tree.map(lambda p, u: p + 0.01 * u, params, updates)


def test_the_first_step_of_the_original_optimizer_is_a_tenth_over_the_root_of_a_thousandth():
    optimizer = make_optimizer(
        OptimizerConfig(algorithm="bert", weight_decay=0, max_grad_norm=0, eps=1e-12)
    )
    params = {"kernel": np.ones((2, 2), np.float32)}
    updates, _ = optimizer.update(
        {"kernel": np.full((2, 2), 0.5, np.float32)}, optimizer.init(params), params
    )
    assert np.allclose(updates["kernel"], -0.1 / np.sqrt(0.001))  # Adam's would be -1


def test_each_row_of_the_mix_has_its_own_trust_ratio():
    optimizer = make_optimizer(OptimizerConfig(algorithm="lamb", weight_decay=0.1, max_grad_norm=0))
    rng = np.random.default_rng(3)
    # Row i mixes i + 2 outputs; what comes after is 0 and has no gradient.
    rows = np.tril(rng.normal(size=(4, 5)), 1).astype(np.float32)
    grads = np.tril(rng.normal(size=(4, 5)), 1).astype(np.float32)

    def updates(leaf, grad, name):
        params = {"encoder": {name: leaf}}
        state = optimizer.init(params)
        return optimizer.update({"encoder": {name: grad}}, state, params)[0]["encoder"][name]

    together = updates(rows, grads, "mix")
    for i in range(4):
        alone = updates(rows[i, : i + 2], grads[i, : i + 2], "alpha")
        np.testing.assert_allclose(together[i, : i + 2], alone, rtol=1e-5)
        assert not np.any(together[i, i + 2 :])


def test_each_layer_of_a_stack_has_its_own_trust_ratio():
    optimizer = make_optimizer(OptimizerConfig(algorithm="lamb", weight_decay=0, max_grad_norm=0))
    rng = np.random.default_rng(2)
    stack = (
        rng.normal(size=(3, 4, 5)).astype(np.float32)
        * np.array([1, 10, 0], np.float32)[:, None, None]
    )
    grads = rng.normal(size=stack.shape).astype(np.float32)

    def updates(kernel, grad, name):
        params = {name: {"kernel": kernel}}
        return optimizer.update({name: {"kernel": grad}}, optimizer.init(params), params)[0][name][
            "kernel"
        ]

    together = updates(stack, grads, "layers")
    for layer in range(3):
        assert np.allclose(
            together[layer], updates(stack[layer], grads[layer], "pooler"), rtol=1e-5
        )
    norms = np.linalg.norm(np.asarray(together).reshape(3, -1), axis=1)
    assert np.allclose(norms[:2], np.linalg.norm(stack.reshape(3, -1), axis=1)[:2], rtol=1e-4)
    assert np.isfinite(norms).all()
    assert norms[2] > 0  # a layer of zeros moves as Adam says
