"""Embeddings of words that two networks share without sharing gradients (arXiv 2111.09543).

The discriminator's table is E = G + D: the generator's table G, through which no gradient of the
discriminator passes, and a difference D that begins with 0. E itself is what the parameters have,
so that the model is whole wherever it is read. An update adds to E what it adds to G and to D.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bertjax.config import Config
from bertjax.model.functional import GENERATOR, Params
from bertjax.training.optimization.optimizer import make_optimizer

EMBEDDINGS, WORD, TABLE = "embeddings", "word", "embedding"


def update_of(config: Config) -> Callable[..., tuple[Any, optax.OptState]]:
    """Return the `update` of a run's optimizer; it takes gradients, its state and parameters.

    Where embeddings are disentangled it clips the gradients of each network by themselves, and
    returns the updates of the table E from those of G and D.
    """
    settings = config.optimizer
    if not config.replaced.is_disentangled:
        return make_optimizer(settings, config.train.ema_decay).update
    # Clipping has no state, so the state fits without it too.
    optimizer = make_optimizer(dataclasses.replace(settings, max_grad_norm=0.0))

    def update(
        grads: Params, opt_state: optax.OptState, params: Params, **extra: Any
    ) -> tuple[Any, optax.OptState]:
        clipped = clipped_apart(grads, settings.max_grad_norm)
        steps, opt_state = optimizer.update(clipped, opt_state, as_trained(params), **extra)
        return of_table(steps), opt_state

    return update


def as_trained(params: Params) -> dict[str, Any]:
    """Return the parameters that are trained: the difference D in the place of the table E."""
    return _with_words(params, _words(params) - _words(params[GENERATOR]))


def of_table(updates: Params) -> dict[str, Any]:
    """Return the updates of the parameters, E among them, from those of what is trained."""
    return _with_words(updates, _words(updates) + _words(updates[GENERATOR]))


def clipped_apart(gradients: Params, largest: float) -> dict[str, Any]:
    """Return the gradients, those of each network clipped to the norm `largest`; 0: as they are.

    The two are trained apart, so a large gradient of one does not shorten the other's step.
    """
    if not largest:
        return dict(gradients)
    own = {name: leaves for name, leaves in gradients.items() if name != GENERATOR}
    return {**_clipped(own, largest), GENERATOR: _clipped(gradients[GENERATOR], largest)}


def _clipped(tree: Any, largest: float) -> Any:
    norm = optax.tree.norm(tree)
    factor = jnp.where(norm < largest, 1.0, largest / norm)
    return jax.tree.map(lambda leaf: leaf * factor, tree)


def _words(params: Any) -> Array:
    words: Array = params[EMBEDDINGS][WORD][TABLE]
    return words


def _with_words(params: Params, table: Array) -> dict[str, Any]:
    embeddings = {**params[EMBEDDINGS], WORD: {TABLE: table}}
    return {**params, EMBEDDINGS: embeddings}
