"""A training step, a pure function of state, batch and seed, and the programs compiled for it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
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
from bertjax.config.data import mixture_folders, without_places
from bertjax.config.phases.resolution import phases_of
from bertjax.errors import check
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout, PartOfBatch
from bertjax.parallel import rules
from bertjax.parallel.compiler_options import compiler_options
from bertjax.training.objective import Objective
from bertjax.training.optimization.algorithms.schedule_free import weights_between
from bertjax.training.optimization.algorithms.sophia import hutchinson
from bertjax.training.optimization.algorithms.table import ALGORITHMS
from bertjax.training.optimization.batch_schedule import NOISE, SIGNAL
from bertjax.training.optimization.freezing import stop_frozen
from bertjax.training.optimization.mixout import mix
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.optimization.plan import Plan, learning_rate, plan_of
from bertjax.training.optimization.sparsity import sparsified, sparsity_of, stop_zeros
from bertjax.training.pretraining import pretraining
from bertjax.training.pretraining_loss import Sums
from bertjax.types import Batch

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
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def abstract_state(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """Return the shape, type and sharding of every leaf of the state, as `jax.ShapeDtypeStruct`.

    The optimizer's moments are sharded as their parameters are. Raises `UserError` where the mesh
    does not divide the model.
    """
    return _abstract_state(_program_config(config), mesh, objective or pretraining(config))


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
    return TrainState(
        step=rules.with_shardings(shapes.step, replicated),
        params=rules.with_shardings(shapes.params, params),
        opt_state=rules.with_shardings(shapes.opt_state, opt_state),
    )


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def state_shardings(config: Config, mesh: Mesh, objective: Objective | None = None) -> TrainState:
    """Return the sharding of every leaf of `abstract_state`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh, objective))


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raise `UserError` where the mesh does not divide the batch or its rows."""
    parts, accumulated = rules.batch_parts(mesh), config.train.gradient_accumulation_steps
    check(
        config.train.batch_size % (parts * accumulated) == 0,
        where="train.batch_size",
        found=config.train.batch_size,
        expected=f"a multiple of the devices that share the batch ({parts}) times "
        f"train.gradient_accumulation_steps ({accumulated})",
    )
    row_devices = mesh.shape["sequence"]
    expected = f"a multiple of the devices that share a row, mesh.sequence ({row_devices})"
    name = "finetune.length_buckets" if config.finetune.tasks else "data.max_seq_length"
    # A shard of a row may not be longer than another: each device runs the same program.
    for length in config.row_lengths:
        check(length % row_devices == 0, where=name, found=length, expected=expected)


def gradients(
    config: Config,
    params: Params,
    batch: Batch,
    key: Array | None,
    layout: Layout = ANYWHERE,
    objective: Objective | None = None,
    transform: Callable[[Params], Params] | None = None,
) -> tuple[Params, Any, Array]:
    """Return (gradient, sums, squares) of the objective's loss over the whole batch.

    `sums` are the batch's (`Objective.sums`); `squares`, float32 [], adds up the squared norms of
    the parts' gradients. The batch is divided into `gradient_accumulation_steps` parts for each
    `batch_size` rows that it has. The losses of the parts are divided by the whole batch's counts,
    so their gradients add up to the batch's gradient, however unevenly the masks are spread. The
    loss is computed on `transform(params)`, if `transform` is given.
    """
    objective = objective or pretraining(config)
    totals = objective.counts(batch)

    def part_loss(
        params: Params, part: Batch, key: Array | None, layout: Layout
    ) -> tuple[Array, Any]:
        transformed = params if transform is None else transform(params)
        sums = objective.sums(transformed, part, key=key, layout=layout)
        return objective.loss(sums, totals), sums

    def part_gradient(
        params: Params, part: Batch, key: Array | None, layout: Layout
    ) -> tuple[Params, Any, Array]:
        gradient, sums = jax.grad(part_loss, has_aux=True)(params, part, key, layout)
        # Only the adaptive batch schedule uses the norm; else the compiler leaves it out.
        return gradient, sums, optax.tree.norm(gradient, squared=True)

    parts = config.train.gradient_accumulation_steps * batches_in(config, batch)
    if parts == 1:
        return part_gradient(params, batch, key, layout)
    part_rows = rows_in(batch) // parts

    def add_part(so_far: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = numbered
        part_key, part_layout = key, layout
        if config.dropout_follows_rows:
            part_layout = PartOfBatch(layout, index, parts, part_rows)
        elif key is not None:
            # With one key, rows of the same index in different parts would have the same dropout
            # mask.
            part_key = jax.random.fold_in(key, index)
        gradient_sums_square = part_gradient(params, part, part_key, part_layout)
        return jax.tree.map(jnp.add, so_far, gradient_sums_square), None

    # Part i has the rows i, i + parts, i + 2 parts and so on, so each device splits the rows that
    # it has. With contiguous parts the rows would have to move between the devices.
    split = {
        name: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        for name, x in batch.items()
    }
    first = {name: x[0] for name, x in split.items()}
    # Zeros in the form of the result, of which only the shapes are computed here.
    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(partial(part_gradient, layout=layout), params, first, key),
    )
    total, _ = jax.lax.scan(add_part, zero, (jnp.arange(parts), split))
    return total


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    objective: Objective | None = None,
    layout: Layout = ANYWHERE,
    seed: ArrayLike | None = None,
    given: Params | None = None,
    plan: Plan | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Return the state after one update, and the update's metrics as float32 scalars.

    `objective` is pretraining unless given; `seed` is `config.seed` unless given. `given` are
    groups that the objective reads beside the parameters (`objective.Given`). `plan` is that of
    the phase whose configuration `config` is; None: of a run without phases. The step counter
    advances by `batches_in(config, batch)`. For a mixture (`corpus_ids` in the batch) the metrics
    have each corpus's share of the rows, `rate/NAME`.

    When the loss or the gradient is not finite, parameters and optimizer stay as they were,
    `skipped` is 1, and only the step advances.
    """
    if plan is None:
        config, plan = _without_phases(config)
    objective = objective or pretraining(config)
    seed = config.seed if seed is None else seed
    batch, metrics = _pop_corpus_rates(config, batch)
    batch = objective.prepare(batch, random_key(seed, state.step, MASKS), state.step)
    transform = _transform_of(config, state, seed, given)
    key = random_key(seed, state.step, DROPOUT)

    def gradients_at(params: Params) -> tuple[Params, Any, Array]:
        return gradients(config, params, batch, key, layout, objective, transform)

    def hessian_diagonal() -> Params:
        hessian_key = random_key(seed, state.step, HESSIAN)
        return hutchinson(lambda params: gradients_at(params)[0], state.params, hessian_key)

    grads, sums, squares = gradients_at(state.params)
    metrics |= objective.means(sums)
    # Before clipping, so that the metrics show a spike. One element that is not finite makes the
    # norm so too.
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    rate, params, opt_state = _update(config, plan, state, grads, hessian_diagonal)
    if ALGORITHMS[config.optimizer.algorithm].has_hessian:
        # Second derivatives may overflow where the first ones do not.
        finite &= _are_finite(opt_state)
    # Decided on the device: the host sees the metrics only some steps later.
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    # After a skipped update too: a stage that is due at its step would else never come.
    params = sparsified(config, state.params, params, state.step)
    if config.finetune.makes_sparse:
        metrics["sparsity"] = sparsity_of(params)
    metrics |= {
        "learning_rate": jnp.asarray(rate, jnp.float32),
        "grad_norm": grad_norm,
        "param_norm": optax.tree.norm(params),
        "tokens": jnp.sum(batch["input_mask"].astype(jnp.float32)),
        "skipped": 1.0 - finite.astype(jnp.float32),
    }
    batches = batches_in(config, batch)
    if config.train.batch_size_schedule == "adaptive":
        metrics |= gradient_noise(config, batches, grad_norm**2, squares)
    return TrainState(state.step + batches, params, opt_state), metrics


def _transform_of(
    config: Config, state: TrainState, seed: ArrayLike, given: Params | None
) -> Callable[[Params], Params]:
    """Return the function from parameters to the weights at which their gradient is taken."""
    # One key for all parts of a batch: its gradient is taken at one set of weights.
    mixout_key = random_key(seed, state.step, MIXOUT)

    def transform(params: Params) -> Params:
        trainable = stop_zeros(config, stop_frozen(config.optimizer, params), state.step)
        # The optimizer's state keeps the first values, which mixout puts back at random.
        own = mix(trainable, state.opt_state, config.optimizer.mixout, mixout_key)
        if ALGORITHMS[config.optimizer.algorithm].averages:
            own = weights_between(own, state.opt_state, config.optimizer.b1)
        return {**own, **given} if given else own

    return transform


def _without_phases(config: Config) -> tuple[Config, Plan]:
    """Return the configuration of a run without phases, in steps, and its plan."""
    phases = phases_of(config)
    (phase,) = phases
    return phase.config, plan_of(phases, phase)


def _are_finite(tree: Any) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _update(
    config: Config,
    plan: Plan,
    state: TrainState,
    grads: Params,
    hessian_diagonal: Callable[[], Params],
) -> tuple[ArrayLike, Params, optax.OptState]:
    """Return the learning rate at the state's step, and parameters and optimizer after it."""
    # The learning rate follows the run's step. It does not follow a counter in the optimizer, since
    # a skipped update would not advance that counter.
    rate = learning_rate(config.optimizer, plan)(state.step)
    optimizer = make_optimizer(config.optimizer, config.train.ema_decay)
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params, rate=rate, hessian_diagonal=hessian_diagonal
    )
    # Updates point downhill already, so they are added.
    params = jax.tree.map(lambda param, update: param + rate * update, state.params, updates)
    return rate, params, opt_state


def batches_in(config: Config, batch: Batch) -> int:
    """Return the size of a batch in units of `train.batch_size` rows; 1 for a smaller batch."""
    return max(1, rows_in(batch) // config.train.batch_size)


def rows_in(batch: Batch) -> int:
    """Return the number of rows of a batch."""
    any_array = next(iter(batch.values()))  # all arrays have the same number of rows
    return any_array.shape[0]


def gradient_noise(
    config: Config, batches: int, square: Array, squares_of_parts: Array
) -> dict[str, Array]:
    """Return unbiased estimates of tr(S) and |G|^2 (arXiv 1812.06162, appendix A.1).

    tr(S) is the total variance of one row's gradient, and |G|^2 the squared norm of the true
    gradient. Their ratio is the gradient noise scale. `square` is the squared norm of the whole
    batch's gradient, of n parts of b rows each. `squares_of_parts` adds up |g_i|^2, where the
    gradients g_i of the parts add up to the batch's gradient. One step's estimates may be negative.
    """
    parts = config.train.gradient_accumulation_steps * batches
    part_size = config.train.batch_size / config.train.gradient_accumulation_steps
    # The mean squared norm of a part's own gradient, which is about n g_i: sum(|n g_i|^2) / n.
    part_square = parts * squares_of_parts
    # The paper's formulas for batches of b and n b rows:
    # tr(S) = (part_square - square) / (1/b - 1/(n b)),
    # |G|^2 = (n b square - b part_square) / (n b - b).
    noise = part_size * parts / (parts - 1) * (part_square - square)
    signal = (parts * square - part_square) / (parts - 1)
    return {NOISE: noise, SIGNAL: signal}


def _pop_corpus_rates(config: Config, batch: Batch) -> tuple[Batch, dict[str, Array]]:
    """Return the batch without `corpus_ids`, and each corpus's share of its rows."""
    if "corpus_ids" not in batch:
        return batch, {}
    rest = {name: values for name, values in batch.items() if name != "corpus_ids"}
    rates = {}
    for index, name in enumerate(mixture_folders(config.data.mixture)):
        rates[f"rate/{name}"] = jnp.mean(batch["corpus_ids"] == index)
    return rest, rates


def _program_config(config: Config) -> Config:
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


class InitPrograms(NamedTuple):
    """The compiled programs that make a run's first state."""

    state: Callable[[], TrainState]
    """`init_state` with the run's seed."""
    opt_state: Callable[[Params], optax.OptState]
    """From parameters to the optimizer's state before the first step."""


def jit_init(config: Config, mesh: Mesh, objective: Objective) -> InitPrograms:
    """Return the programs, compiled for `mesh`, that make the first state."""
    init, init_optimizer = _jit_init(_program_config(config), mesh, objective)
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
    """(seed, state, batch, given) to (state, metrics); runs that differ in the seed share it."""
    seed: np.uint32
    given: Params
    """What the objective reads beside the state's parameters; never a constant of the program."""

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """Return the new state, in the memory of the old one, and the metrics of `train_step`."""
        return self.program(self.seed, state, batch, self.given)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Return the program for arrays of these shapes, ready to be compiled."""
        return self.program.lower(self.seed, state, batch, self.given)


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
        config, plan = _without_phases(config)
    objective = objective or pretraining(config)
    program = _jit_train_step(_program_config(config), mesh, objective, plan)
    return JittedTrainStep(program, np.uint32(config.seed), given or {})


@lru_cache(maxsize=KEPT_PROGRAMS)
def _jit_train_step(
    config: Config, mesh: Mesh, objective: Objective, plan: Plan
) -> jax.stages.Wrapped:
    shardings = state_shardings(config, mesh, objective)
    replicated = rules.replicated(mesh)
    layout = rules.MeshLayout(mesh)

    def step(
        seed: Array, state: TrainState, batch: Batch, given: Params
    ) -> tuple[TrainState, dict[str, Array]]:
        return train_step(config, state, batch, objective, layout, seed, given, plan)

    return jax.jit(
        step,
        # The new state takes the old one's memory: else parameters and moments are held twice.
        donate_argnums=1,
        # What is given lies on the mesh already, and stays as it lies.
        in_shardings=(replicated, shardings, rules.batch_sharding(mesh), None),
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
    objective = pretraining(config)
    layout = rules.MeshLayout(mesh)

    def eval_step(params: Params, batch: Batch) -> Sums:
        return objective.sums(params, batch, key=None, layout=layout)

    return jax.jit(
        eval_step,
        # Parameters stay where they are: kernels in sparse form have other arrays.
        in_shardings=(None, rules.batch_sharding(mesh)),
        out_shardings=rules.replicated(mesh),
    )
