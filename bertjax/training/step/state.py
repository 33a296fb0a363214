"""The state of a run: its arrays, their shapes and shardings, and the keys of random numbers."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from bertjax.config import Config
from bertjax.config.data import without_places
from bertjax.masking.adaptive import PieceScores, new_scores
from bertjax.model.functional import Params
from bertjax.parallel import rules
from bertjax.training.objective import Objective
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.pretraining import pretraining

# Purposes of random numbers; a key is fold_in(fold_in(key(seed), step), purpose). So a resumed run
# draws the same numbers as an undisturbed one, and no generator's state has to be saved.
INIT, DROPOUT, MASKS, MIXOUT, HESSIAN = 0, 1, 2, 3, 4

KEPT_PROGRAMS = 4  # of each kind; most processes need one


class TrainState(NamedTuple):
    """The whole state of a run; the same tuple also holds the shapes or shardings of its arrays."""

    step: Array
    """int32 []: the number of batches used so far, which is the position in the data too."""
    params: Params
    opt_state: optax.OptState
    scores: PieceScores | None = None
    """What adaptive masks know of the pieces of the vocabulary; None without such masks."""

    def by_field(self) -> dict[str, Any]:
        """Return the fields that there are: what a checkpoint has."""
        return {name: leaves for name, leaves in self._asdict().items() if leaves is not None}


def random_key(seed: ArrayLike, step: Array | int, purpose: int) -> Array:
    """Return the PRNG key of one purpose at one step of the run with this seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)


def init_state(
    config: Config, objective: Objective | None = None, seed: ArrayLike | None = None
) -> TrainState:
    """Return a run's state before its first step.

    `objective` is pretraining unless given; `seed` is `config.seed` unless given.
    """
    seed = config.seed if seed is None else seed
    params = (objective or pretraining(config)).init(random_key(seed, 0, INIT))
    opt_state = make_optimizer(config.optimizer, config.train.ema_decay).init(params)
    scores = new_scores(config.model.vocab_size) if config.adaptive.is_used else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, scores)


def abstract_state(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """Return the shape, type and sharding of every leaf of the state, as `jax.ShapeDtypeStruct`.

    The optimizer's moments are sharded as their parameters are. Raises `UserError` where the mesh
    does not divide the model.
    """
    return _abstract_state(program_config(config), mesh, objective or pretraining(config))


@lru_cache(maxsize=KEPT_PROGRAMS)
def _abstract_state(config: Config, mesh: Mesh, objective: Objective) -> TrainState:
    shapes = jax.eval_shape(lambda: init_state(config, objective))
    logical = objective.logical_axes()
    rules.check_divides(mesh, shapes.params, logical)
    params = rules.tree_shardings(mesh, logical)
    replicated = rules.replicated(mesh)
    # A moment takes the sharding of its parameter; everything else is on all devices.

    def of_moment(moment: Any, param_sharding: Any) -> Any:
        # A place without a moment: its parameter has another algorithm.
        return moment if _is_masked(moment) else param_sharding

    opt_state = optax.tree_utils.tree_map_params(
        make_optimizer(config.optimizer, config.train.ema_decay),
        of_moment,
        shapes.opt_state,
        params,
        transform_non_params=lambda _: replicated,
        is_leaf=_is_masked,
    )
    # An array of the vocabulary is cut as the table of words is.
    scores = jax.tree.map(lambda _: rules.sharding(mesh, PartitionSpec("vocab")), shapes.scores)
    return TrainState(
        step=rules.with_shardings(shapes.step, replicated),
        params=rules.with_shardings(shapes.params, params),
        opt_state=rules.with_shardings(shapes.opt_state, opt_state),
        scores=rules.with_shardings(shapes.scores, scores),
    )


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def state_shardings(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """Return the sharding of every leaf of `abstract_state`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh, objective))


def program_config(config: Config) -> Config:
    """Return `config` reduced to what affects compiled programs, as the key of their cache.

    So one program serves all seeds, wherever the parameters come from, and a sweep over seeds
    compiles once.
    """
    finetune = dataclasses.replace(config.finetune, decoder_from="")
    distill = dataclasses.replace(config.distill, teacher="")
    data = without_places(config.data)
    return dataclasses.replace(
        config, seed=0, init_from="", new_heads=(), data=data, finetune=finetune, distill=distill
    )
