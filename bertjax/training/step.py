"""One training step, as a pure function of (state, batch) and the run's seed."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from bertjax.config import Config
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.parallel import rules
from bertjax.parallel.compiler_options import compiler_options
from bertjax.training.objective import Objective
from bertjax.training.optimization.batch_schedule import NOISE, SIGNAL
from bertjax.training.optimization.freezing import stop_frozen
from bertjax.training.optimization.mixout import mix
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.optimization.schedules import make_schedule
from bertjax.training.pretraining import pretraining
from bertjax.types import Batch

# Purposes of random numbers; a key is fold_in(fold_in(key(seed), step), purpose).
INIT, DROPOUT, MASKS, MIXOUT = 0, 1, 2, 3


class TrainState(NamedTuple):
    """All that a run is: `step` (int32) counts the batches used, and so is the data position too.

    Of the same shape are the trees of its shardings and of its abstract values.
    """

    step: Any
    params: Any
    opt_state: Any


def random_key(seed: ArrayLike, step: Array | int, purpose: int) -> Array:
    """The key of one purpose at one step of the run with this seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)


def init_state(
    config: Config, objective: Objective | None = None, seed: ArrayLike | None = None
) -> TrainState:
    """A run's state before its first step; of pretraining, where no other `objective` is given.

    `seed` is `config.seed` unless given.
    """
    seed = config.seed if seed is None else seed
    params = (objective or pretraining(config)).init(random_key(seed, 0, INIT))
    return TrainState(
        jnp.zeros((), jnp.int32), params, make_optimizer(config.optimizer).init(params)
    )


def abstract_state(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """The shape, type and sharding of every leaf of the state, as `jax.ShapeDtypeStruct`.

    The optimizer's moments lie as their parameters do. Raises `UserError` where the mesh does not
    divide the model.
    """
    goal: Any = objective or pretraining(config)
    return _abstract_state(_unseeded(config), mesh, goal)


@lru_cache(maxsize=4)
def _abstract_state(config: Config, mesh: Mesh, objective: Any) -> TrainState:
    shapes = jax.eval_shape(lambda: init_state(config, objective))
    logical = objective.logical_axes()
    rules.check_divides(mesh, shapes.params, logical)
    params = rules.tree_shardings(mesh, logical)
    whole = rules.replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        make_optimizer(config.optimizer),
        lambda _, layout: layout,
        shapes.opt_state,
        params,
        transform_non_params=lambda _: whole,
    )
    return rules.with_shardings(shapes, TrainState(whole, params, opt_state))


def state_shardings(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """The sharding of every leaf of `abstract_state`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh, objective))


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raise `UserError` where the batch cannot be cut over the mesh."""
    parts, accumulated = rules.batch_parts(mesh), config.train.gradient_accumulation_steps
    expected = f"a multiple of the devices that share the batch ({parts}) times "
    expected += f"train.gradient_accumulation_steps ({accumulated})"
    check(
        config.train.batch_size % (parts * accumulated) == 0,
        where="train.batch_size",
        found=config.train.batch_size,
        expected=expected,
    )
    stretches = mesh.shape["sequence"]
    expected = f"a multiple of the devices that share a row, mesh.sequence ({stretches})"
    name = "finetune.length_buckets" if config.finetune.tasks else "data.max_seq_length"
    for length in config.row_lengths:
        check(length % stretches == 0, where=name, found=length, expected=expected)


def gradients(
    config: Config,
    params: Params,
    batch: Batch,
    key: Array | None,
    layout: Layout = ANYWHERE,
    objective: Objective | None = None,
    used: Callable[[Params], Params] = lambda params: params,
) -> tuple[Params, Any, Array]:
    """The gradient of the objective's loss over the whole batch, the batch's sums, and the sum of
    the squared norms of the parts' shares in the gradient, float32 [].

    The batch is worked in `gradient_accumulation_steps` parts, so many for each `batch_size` rows
    that it has; dividing by the whole batch's counts makes their gradients add up to it, however
    unevenly the masks are spread. `used` is what the loss sees of the parameters.
    """
    objective = objective or pretraining(config)
    totals = objective.counts(batch)

    def part_loss(params: Params, part: Batch, key: Array | None) -> tuple[Array, Any]:
        sums = objective.sums(used(params), part, key=key, layout=layout)
        return objective.loss(sums, totals), sums

    def part_gradient(params: Params, part: Batch, key: Array | None) -> tuple[Params, Any, Array]:
        gradient, sums = jax.grad(part_loss, has_aux=True)(params, part, key)
        return gradient, sums, optax.tree.norm(gradient, squared=True)

    parts = config.train.gradient_accumulation_steps * batches_in(config, batch)
    if parts == 1:
        return part_gradient(params, batch, key)

    def add_part(carry: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = numbered
        part_key = None if key is None else jax.random.fold_in(key, index)
        return jax.tree.map(jnp.add, carry, part_gradient(params, part, part_key)), None

    # Strided parts: each device cuts the rows it has. Contiguous ones would move the whole batch.
    split = {
        name: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        for name, x in batch.items()
    }
    first = {name: x[0] for name, x in split.items()}
    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(part_gradient, params, first, key),
    )
    return jax.lax.scan(add_part, zero, (jnp.arange(parts), split))[0]


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    objective: Objective | None = None,
    layout: Layout = ANYWHERE,
    seed: ArrayLike | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update, and its metrics as float32 scalars. The step goes on by as many as `batches_in`
    the batch.

    `objective` is pretraining unless given; `seed` is `config.seed`. The metrics of
    a mixture (`corpus_ids` in the batch) have each corpus's share of the rows, `rate/NAME`.

    When the loss or the gradient is not finite, parameters and optimizer stay as they were,
    `skipped` is 1, and only the step advances.
    """
    objective = objective or pretraining(config)
    seed = config.seed if seed is None else seed
    batch, metrics = _take_rates(config, batch)
    batch = objective.prepare(batch, random_key(seed, state.step, MASKS))
    mixout_key = random_key(seed, state.step, MIXOUT)

    def used(params: Params) -> Params:
        return mix(
            stop_frozen(config.optimizer, params),
            state.opt_state,
            config.optimizer.mixout,
            mixout_key,
        )

    key = random_key(seed, state.step, DROPOUT)
    grads, sums, squares = gradients(config, state.params, batch, key, layout, objective, used)
    metrics |= objective.means(sums)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)

    rate = make_schedule(config.optimizer, config.train.steps)(state.step)
    updates, opt_state = make_optimizer(config.optimizer).update(
        grads, state.opt_state, state.params
    )
    params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    metrics |= {
        "learning_rate": jnp.asarray(rate, jnp.float32),
        "grad_norm": grad_norm,
        "param_norm": optax.tree.norm(params),
        "tokens": jnp.sum(batch["input_mask"].astype(jnp.float32)),
        "skipped": 1.0 - finite.astype(jnp.float32),
    }
    if config.train.batch_size_schedule == "adaptive":
        metrics |= gradient_noise(config, batches_in(config, batch), grad_norm**2, squares)
    return TrainState(state.step + batches_in(config, batch), params, opt_state), metrics


def batches_in(config: Config, batch: Batch) -> int:
    """How many times `train.batch_size` rows a batch has; 1 for a smaller one."""
    return max(1, next(iter(batch.values())).shape[0] // config.train.batch_size)


def gradient_noise(
    config: Config, batches: int, square: Array, squares_of_parts: Array
) -> dict[str, Array]:
    """Unbiased estimates of tr(S) and |G|^2, whose ratio is the gradient noise scale (arXiv
    1812.06162, appendix A.1).

    `square` is the squared norm of the gradient of n parts of b rows each, `squares_of_parts` the
    sum of those of the parts' shares in it. Either estimate of one step may be negative.
    """
    parts = config.train.gradient_accumulation_steps * batches
    rows = config.train.batch_size * batches / parts
    of_a_part = parts * squares_of_parts  # the mean over the parts, each as if it were the batch
    noise = rows * parts / (parts - 1) * (of_a_part - square)
    return {NOISE: noise, SIGNAL: (parts * square - of_a_part) / (parts - 1)}


def _take_rates(config: Config, batch: Batch) -> tuple[Batch, dict[str, Array]]:
    if "corpus_ids" not in batch:
        return batch, {}
    names = [entry.partition("=")[0] for entry in config.data.mixture]
    rest = {name: values for name, values in batch.items() if name != "corpus_ids"}
    return rest, {
        f"rate/{name}": jnp.mean(batch["corpus_ids"] == i) for i, name in enumerate(names)
    }


def jit_init(config: Config, mesh: Mesh, objective: Any) -> tuple[Any, Any]:
    """Compiled for `mesh`: `init_state`, which takes nothing, and parameters to the optimizer's
    state before a step.
    """
    init, init_optimizer = _jit_init(_unseeded(config), mesh, objective)
    return partial(init, np.uint32(config.seed)), init_optimizer


@lru_cache(maxsize=4)
def _jit_init(config: Config, mesh: Mesh, objective: Any) -> tuple[Any, Any]:
    layouts = state_shardings(config, mesh, objective)
    init = jax.jit(lambda seed: init_state(config, objective, seed), out_shardings=layouts)
    return init, jax.jit(make_optimizer(config.optimizer).init, out_shardings=layouts.opt_state)


def _unseeded(config: Config) -> Config:
    """What programs are told apart by: one serves all seeds, from wherever they begin."""
    finetune = dataclasses.replace(config.finetune, decoder_from="")
    return dataclasses.replace(config, seed=0, init_from="", new_heads=(), finetune=finetune)


def jit_train_step(config: Config, mesh: Mesh, objective: Objective | None = None) -> Any:
    """`train_step` compiled for `mesh`, (state, batch) to both; the state's memory is reused for
    the new state.

    One program serves all seeds.
    """
    goal: Any = objective or pretraining(config)
    return partial(_jit_train_step(_unseeded(config), mesh, goal), np.uint32(config.seed))


@lru_cache(maxsize=4)
def _jit_train_step(config: Config, mesh: Mesh, objective: Objective) -> Any:
    layouts = state_shardings(config, mesh, objective)
    return jax.jit(
        lambda seed, state, batch: train_step(
            config, state, batch, objective, rules.MeshLayout(mesh), seed
        ),
        donate_argnums=1,
        in_shardings=(rules.replicated(mesh), layouts, rules.batch_sharding(mesh)),
        out_shardings=(layouts, rules.replicated(mesh)),
        compiler_options=compiler_options(mesh),
    )


def lower_train_step(
    config: Config, mesh: Mesh, objective: Objective, state: Any, batch: Any
) -> jax.stages.Lowered:
    """The train step for arrays of these shapes, ready to be compiled."""
    step = jit_train_step(config, mesh, objective)
    return step.func.lower(*step.args, state, batch)


def jit_eval_step(config: Config, mesh: Mesh) -> Any:
    """(params, batch) to the batch's `Sums` of pretraining, without dropout, compiled for `mesh`."""
    objective = pretraining(config)
    layouts = state_shardings(config, mesh, objective)
    return jax.jit(
        lambda params, batch: objective.sums(
            params, batch, key=None, layout=rules.MeshLayout(mesh)
        ),
        in_shardings=(layouts.params, rules.batch_sharding(mesh)),
        out_shardings=rules.replicated(mesh),
    )
