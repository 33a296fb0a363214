"""A small tree of parameters with stacked layers, and updates of it by this project's optimizer."""

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config import OptimizerConfig
from bertjax.training.optimization.optimizer import make_optimizer

SHAPES = {
    "embeddings": {"word": {"embedding": (5, 4)}},
    "encoder": {
        "layers": {
            "attention": {
                "query": {"kernel": (2, 4, 2, 3), "bias": (2, 2, 3)},
                "output": {"kernel": (2, 2, 3, 4)},
            },
            "norm": {"scale": (2, 4)},
        }
    },
    "pooler": {"kernel": (4, 4), "bias": (4,)},
}
RATES = (0.0, 0.02, 0.04, 0.03, 0.01)


def names(tree):
    """The leaves by their names, in float64."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.float64(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def random_tree(rng, scale=1.0):
    return jax.tree.map(
        lambda shape: (scale * rng.normal(size=shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def start(seed=0):
    """Parameters and the gradient of each update, which grow and shrink by a factor of 10."""
    rng = np.random.default_rng(seed)
    scales = [1.0, 0.1, 1.0, 10.0, 0.3]
    return random_tree(rng), [random_tree(rng, scale) for scale in scales]


def followed(config, params, grads, rates=RATES, **extra):
    """The parameters after each update, and the last state."""
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    after = []
    for rate, grad in zip(rates, grads, strict=True):
        grad = grad(params, state) if callable(grad) else grad
        given = {name: value(params) for name, value in extra.items()}
        steps, state = optimizer.update(grad, state, params, rate=jnp.float32(rate), **given)
        params = jax.tree.map(lambda p, s, rate=rate: p + np.float32(rate) * s, params, steps)
        after.append(params)
    return after, state


def config_of(algorithm, **changes):
    values = {"algorithm": algorithm, "weight_decay": 0.1, "max_grad_norm": 0.0}
    return OptimizerConfig(**values | changes)


def decay(name, weights, rate=0.1):
    return 0.0 if name.endswith(("bias", "scale")) else rate * weights


def tensors(name, array):
    """The tensors of a parameter: each layer of a stack is one."""
    return list(array) if "layers" in name else [array]


def assert_follows(after, expected, rtol=2e-4):
    for ours, by_hand in zip(after, expected, strict=True):
        for name, weights in names(ours).items():
            np.testing.assert_allclose(weights, by_hand[name], rtol=rtol, atol=2e-6, err_msg=name)
