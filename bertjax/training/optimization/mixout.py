"""Mixout (arXiv 1909.11299): for one step, some weights are as they were when the run began."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

MIXED = ("encoder", "pooler")


class FirstValues(NamedTuple):
    """The parameters as a run began with them, kept in the optimizer's state, so that a checkpoint
    has them.
    """

    params: Any


def keep_first_values(mixout: float) -> optax.GradientTransformation:
    """Changes no step; its state holds the first parameters, if there is mixout."""
    if not mixout:
        return optax.identity()
    # Copies: the state is donated, and no buffer may be given away twice.
    init = lambda params: FirstValues(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params))  # noqa: E731
    return optax.GradientTransformation(init, lambda steps, state, params=None: (steps, state))


def mix(params: Any, opt_state: Any, mixout: float, key: Array) -> Any:
    """`params` with each kernel's weight w replaced by its first value u with probability p, then
    (x - p u) / (1 - p).

    As equation 5 of the paper: the expectation is w. Of the encoder and the pooler; heads have no
    first value worth going back to. `opt_state` holds what `keep_first_values` kept. The draws do
    not depend on the mesh.
    """
    if not mixout:
        return params
    is_first = lambda leaf: isinstance(leaf, FirstValues)  # noqa: E731
    (first,) = (leaf for leaf in jax.tree.leaves(opt_state, is_leaf=is_first) if is_first(leaf))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    numbers = {jax.tree_util.keystr(path): number for number, path in enumerate(paths)}

    def mixed(path: Any, w: Array, u: Array) -> Array:
        if path[0].key not in MIXED or path[-1].key != "kernel":
            return w
        back = jax.random.bernoulli(
            jax.random.fold_in(key, numbers[jax.tree_util.keystr(path)]), mixout, w.shape
        )
        return (jnp.where(back, u, w) - mixout * u) / (1 - mixout)

    return jax.tree_util.tree_map_with_path(mixed, params, first.params)
