"""Mixout (arXiv 1909.11299): in each step, random weights return to their first values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.model.functional import Params

MIXED = ("encoder", "pooler")


class FirstValues(NamedTuple):
    """The parameters that a run began with.

    They are part of the optimizer's state, so that a checkpoint has them and a resumed run mixes
    with the same values.
    """

    params: Params


def keep_first_values(mixout: float) -> optax.GradientTransformation:
    """Return a transformation that changes no step, and keeps the first parameters in its state.

    If `mixout` is 0, it keeps nothing.
    """
    if not mixout:
        return optax.identity()

    def init(params: Any) -> FirstValues:
        # Copies: the train step donates the state, and no buffer may be donated twice.
        return FirstValues(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params))

    def update(steps: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return steps, state

    return optax.GradientTransformation(init, update)


def mix(params: Params, opt_state: optax.OptState, mixout: float, key: Array) -> Params:
    """Return `params` after mixout with probability p = `mixout`.

    Each weight w of a kernel is replaced by its first value u with probability p, and the result x
    becomes (x - p u) / (1 - p), whose expectation is w (equation 5 of the paper). Only kernels
    change, as in the authors' implementation, and only those of the encoder and the pooler: a new
    head has no first value worth going back to. `opt_state` holds what `keep_first_values` kept.
    The random draws do not depend on the mesh.
    """
    if not mixout:
        return params
    first_values = _first_values(opt_state)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    # The key of a tensor is made from its number in the tree and not from hash(), because Python's
    # hashes of strings differ from process to process.
    numbers = {jax.tree_util.keystr(path): number for number, path in enumerate(paths)}

    def mixed(path: Any, w: Array, u: Array) -> Array:
        if path[0].key not in MIXED or path[-1].key != "kernel":
            return w
        leaf_key = jax.random.fold_in(key, numbers[jax.tree_util.keystr(path)])
        is_replaced = jax.random.bernoulli(leaf_key, mixout, w.shape)
        return (jnp.where(is_replaced, u, w) - mixout * u) / (1 - mixout)

    return jax.tree_util.tree_map_with_path(mixed, params, first_values)


def _first_values(opt_state: optax.OptState) -> Params:
    """Return the parameters of the one `FirstValues` in the optimizer's nested state."""

    def is_first_values(node: Any) -> bool:
        return isinstance(node, FirstValues)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_first_values)
    return next(node.params for node in nodes if is_first_values(node))
