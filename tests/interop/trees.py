"""Comparison of parameters."""

import jax
import numpy as np


def same(a, b):
    """Return whether two trees have the same structure and the same numbers to the bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b))
    )
