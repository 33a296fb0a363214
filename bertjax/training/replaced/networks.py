"""The parameters of two networks as one tree: the model's groups, and what the generator adds."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import GENERATOR, Params

# Folded into the key of the generator's new parameters, so that the model's are those it has alone.
OF_GENERATOR = 1
EMBEDDINGS = "embeddings"
WORD = "word"
PROJECTION = "projection"  # of the embeddings; each network has its own


def new_params(
    model: ModelConfig, generator: ModelConfig, key: Array, *, disentangled: bool
) -> Params:
    """Return new parameters of both; the model's are those that it would have alone.

    Where embeddings are `disentangled`, the generator has all groups of its own, and begins with
    the model's table of words.
    """
    own = functional.init(generator, jax.random.fold_in(key, OF_GENERATOR))
    params = functional.init(model, key)
    if not disentangled:
        return {**params, GENERATOR: _added(own)}
    # A copy: no buffer may be donated to the step twice.
    words = jax.tree.map(jnp.copy, params[EMBEDDINGS][WORD])
    return {**params, GENERATOR: {**own, EMBEDDINGS: {**own[EMBEDDINGS], WORD: words}}}


def logical_axes(model: ModelConfig, generator: ModelConfig, *, disentangled: bool) -> Params:
    """Return the tree of `new_params` with a PartitionSpec of logical axes at each leaf."""
    axes = functional.logical_axes(generator)
    added = axes if disentangled else _added(axes)
    return {**functional.logical_axes(model), GENERATOR: added}


def _added(generator: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a generator has beside the embeddings that it takes from the model."""
    groups = {name: leaves for name, leaves in generator.items() if name != EMBEDDINGS}
    own = {name: leaves for name, leaves in generator[EMBEDDINGS].items() if name == PROJECTION}
    return {EMBEDDINGS: own, **groups} if own else groups


def generator_params(params: Params) -> dict[str, Any]:
    """Return the generator as a network of its own, from the parameters of both."""
    added = params[GENERATOR]
    if WORD in added.get(EMBEDDINGS, {}):
        return dict(added)
    shared = {name: leaves for name, leaves in params[EMBEDDINGS].items() if name != PROJECTION}
    return {**added, EMBEDDINGS: {**shared, **added.get(EMBEDDINGS, {})}}
