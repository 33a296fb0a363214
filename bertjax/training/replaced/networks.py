"""The parameters of two networks as one tree: the model's groups, and what the generator adds."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.functional import GENERATOR, Params

# Folded into the key of the generator's new parameters, so that the model's are those it has alone.
OF_GENERATOR = 1
EMBEDDINGS = "embeddings"
PROJECTION = "projection"  # of the embeddings; each network has its own


def new_params(model: ModelConfig, generator: ModelConfig, key: Array) -> Params:
    """Return new parameters of both; the model's are those that it would have alone."""
    own = functional.init(generator, jax.random.fold_in(key, OF_GENERATOR))
    return {**functional.init(model, key), GENERATOR: _added(own)}


def logical_axes(model: ModelConfig, generator: ModelConfig) -> Params:
    """Return the tree of `new_params` with a PartitionSpec of logical axes at each leaf."""
    added = _added(functional.logical_axes(generator))
    return {**functional.logical_axes(model), GENERATOR: added}


def _added(generator: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a generator has beside the embeddings that it takes from the model."""
    groups = {name: leaves for name, leaves in generator.items() if name != EMBEDDINGS}
    own = {name: leaves for name, leaves in generator[EMBEDDINGS].items() if name == PROJECTION}
    return {EMBEDDINGS: own, **groups} if own else groups


def generator_params(params: Params) -> dict[str, Any]:
    """Return the generator as a network of its own, from the parameters of both."""
    added = params[GENERATOR]
    shared = {name: leaves for name, leaves in params[EMBEDDINGS].items() if name != PROJECTION}
    return {**added, EMBEDDINGS: {**shared, **added.get(EMBEDDINGS, {})}}
