"""One tensor of a tree of parameters: read, and replaced in a copy of the tree."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bertjax.model.functional import Params


def leaf_of(params: Params, path: Sequence[str]) -> np.ndarray:
    """Return the tensor at `path`."""
    tree: Any = params
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def replace_leaf(tree: Params, path: Sequence[str], leaf: np.ndarray) -> dict[str, Any]:
    """Return `tree` with another leaf at `path`; the two trees share all other leaves."""
    first, *rest = path
    if not rest:
        return {**tree, first: jnp.asarray(leaf)}
    return {**tree, first: replace_leaf(tree[first], rest, leaf)}
