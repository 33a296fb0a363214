"""The programs of a run, compiled for a mesh: its first state, its update, an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.model.functional import Params
from bertjax.parallel import rules
from bertjax.parallel.compiler_options import compiler_options
from bertjax.training.objective import Objective
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.optimization.plan import Plan
from bertjax.training.pretraining import masked_words, pretraining
from bertjax.training.pretraining_loss import Sums
from bertjax.training.step.state import (
    KEPT_PROGRAMS,
    TrainState,
    init_state,
    program_config,
    state_shardings,
)
from bertjax.training.step.update import train_step, without_phases
from bertjax.types import Batch


class InitPrograms(NamedTuple):
    """The compiled programs that make a run's first state."""

    state: Callable[[], TrainState]
    """`init_state` with the run's seed."""
    opt_state: Callable[[Params], optax.OptState]
    """From parameters to the optimizer's state before the first step."""


def jit_init(config: Config, mesh: Mesh, objective: Objective) -> InitPrograms:
    """Return the programs, compiled for `mesh`, that make the first state."""
    init, init_optimizer = _jit_init(program_config(config), mesh, objective)
    # An argument of the program and not a constant in it; unsigned, since int32 is too small for
    # all seeds.
    seed = np.uint32(config.seed)
    return InitPrograms(lambda: init(seed), init_optimizer)


@lru_cache(maxsize=KEPT_PROGRAMS)
def _jit_init(
    config: Config, mesh: Mesh, objective: Objective
) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped]:
    shardings = state_shardings(config, mesh, objective)

    def init(seed: Array) -> TrainState:
        return init_state(config, objective, seed)

    # Parameters are made sharded: made on one device first, a large model would not fit it.
    init_optimizer = make_optimizer(config.optimizer, config.train.ema_decay).init
    return (
        jax.jit(init, out_shardings=shardings),
        jax.jit(init_optimizer, out_shardings=shardings.opt_state),
    )


@dataclass(frozen=True)
class JittedTrainStep:
    """`train_step` compiled for a mesh, with the seed of a run."""

    program: jax.stages.Wrapped
    """(seed, state, batch, given, place) to (state, metrics); runs that differ in the seed share
    it.
    """
    seed: np.uint32
    given: Params
    """What the objective reads beside the state's parameters; never a constant of the program."""

    def __call__(
        self, state: TrainState, batch: Batch, place: np.float32 | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        """Return the new state, in the memory of the old one, and the metrics of `train_step`.

        `place` is as in `train_step`.
        """
        return self.program(self.seed, state, batch, self.given, place)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Return the program for arrays of these shapes, ready to be compiled."""
        return self.program.lower(self.seed, state, batch, self.given, None)


def jit_train_step(
    config: Config,
    mesh: Mesh,
    objective: Objective | None = None,
    given: Params | None = None,
    plan: Plan | None = None,
) -> JittedTrainStep:
    """Return `train_step` compiled for `mesh`; `objective` is pretraining unless given.

    `given` are arrays on the mesh (`Given.params`), `plan` as in `train_step`.
    """
    if plan is None:
        config, plan = without_phases(config)
    objective = objective or pretraining(config)
    program = _jit_train_step(program_config(config), mesh, objective, plan)
    return JittedTrainStep(program, np.uint32(config.seed), given or {})


@lru_cache(maxsize=KEPT_PROGRAMS)
def _jit_train_step(
    config: Config, mesh: Mesh, objective: Objective, plan: Plan
) -> jax.stages.Wrapped:
    shardings = state_shardings(config, mesh, objective)
    replicated = rules.replicated(mesh)
    layout = rules.MeshLayout(mesh)

    def step(
        seed: Array, state: TrainState, batch: Batch, given: Params, place: Array | None
    ) -> tuple[TrainState, dict[str, Array]]:
        return train_step(config, state, batch, objective, layout, seed, given, plan, place)

    return jax.jit(
        step,
        # The new state takes the old one's memory: else parameters and moments are held twice.
        donate_argnums=1,
        # What is given lies on the mesh already, and stays as it lies.
        in_shardings=(replicated, shardings, rules.batch_sharding(mesh), None, replicated),
        out_shardings=(shardings, replicated),
        compiler_options=compiler_options(mesh),
    )


def lower_train_step(
    config: Config, mesh: Mesh, objective: Objective, state: TrainState, batch: Batch
) -> jax.stages.Lowered:
    """Return the train step for arrays of these shapes, ready to be compiled."""
    return jit_train_step(config, mesh, objective).lower(state, batch)


def jit_eval_step(config: Config, mesh: Mesh) -> Callable[[Params, Batch], Sums]:
    """Return the program from (params, batch) to pretraining's `Sums`, compiled for `mesh`.

    Without dropout.
    """
    objective = masked_words(config)
    layout = rules.MeshLayout(mesh)

    def eval_step(params: Params, batch: Batch) -> Sums:
        return objective.sums(params, batch, key=None, layout=layout)

    return jax.jit(
        eval_step,
        # Parameters stay where they are: kernels in sparse form have other arrays.
        in_shardings=(None, rules.batch_sharding(mesh)),
        out_shardings=rules.replicated(mesh),
    )
