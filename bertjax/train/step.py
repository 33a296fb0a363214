"""One training step, as a pure function of (state, batch) and the run's seed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.errors import check
from bertjax.masking import Vocabulary
from bertjax.model import functional
from bertjax.model.functional import Batch, Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.parallel import rules
from bertjax.train import objectives
from bertjax.train.dynamic_masks import mask_batch
from bertjax.train.objectives import Sums
from bertjax.train.optimizer import make_optimizer
from bertjax.train.schedules import make_schedule

# Purposes of random numbers; a key is fold_in(fold_in(key(seed), step), purpose).
INIT, DROPOUT, MASKS = 0, 1, 2


class TrainState(NamedTuple):
    """All that a run is: `step` (int32) counts the batches used, and so is the data position too.

    Of the same shape are the trees of its shardings and of its abstract values.
    """

    step: Any
    params: Any
    opt_state: Any


def random_key(seed: int, step: Array | int, purpose: int) -> Array:
    """The key of one purpose at one step of the run with this seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), purpose)


def init_state(config: Config) -> TrainState:
    """A run's state before its first step."""
    params = functional.init(config.model, random_key(config.seed, 0, INIT))
    return TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(config.optimizer).init(params))


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """The shape, type and sharding of every leaf of the state, as `jax.ShapeDtypeStruct`.

    The optimizer's moments lie as their parameters do. Raises `UserError` where the mesh does not divide the model.
    """
    shapes = jax.eval_shape(lambda: init_state(config))
    logical = functional.logical_axes(config.model)
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
    return rules.laid_out(shapes, TrainState(whole, params, opt_state))


def state_shardings(config: Config, mesh: Mesh) -> TrainState:
    """The sharding of every leaf of `abstract_state`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raise `UserError` where the batch cannot be cut over the mesh."""
    parts, accumulated = rules.batch_parts(mesh), config.train.gradient_accumulation_steps
    expected = f"a multiple of the devices that share the batch ({parts}) times "
    expected += f"train.gradient_accumulation_steps ({accumulated})"
    check(config.train.batch_size % (parts * accumulated) == 0, "train.batch_size", config.train.batch_size, expected)
    length, stretches = config.data.max_seq_length, mesh.shape["sequence"]
    expected = f"a multiple of the devices that share a row, mesh.sequence ({stretches})"
    check(length % stretches == 0, "data.max_seq_length", length, expected)


def gradients(
    config: Config, params: Params, batch: Batch, key: Array | None, layout: Layout = ANYWHERE
) -> tuple[Params, Sums]:
    """The gradient of `objectives.mean_loss` over the whole batch, and the batch's sums.

    The batch is worked in `gradient_accumulation_steps` parts; dividing by the whole batch's
    counts makes their gradients add up to it, however unevenly the masks are spread.
    """
    totals = objectives.counts(batch)

    def part_loss(params: Params, part: Batch, key: Array | None) -> tuple[Array, Sums]:
        sums = objectives.pretraining_sums(config.model, params, part, key=key, layout=layout)
        return objectives.mean_loss(sums, *totals), sums

    part_gradient = jax.grad(part_loss, has_aux=True)
    parts = config.train.gradient_accumulation_steps
    if parts == 1:
        return part_gradient(params, batch, key)

    def add_part(carry: tuple[Params, Sums], numbered: tuple[Array, Batch]) -> tuple[tuple[Params, Sums], None]:
        index, part = numbered
        part_key = None if key is None else jax.random.fold_in(key, index)
        return jax.tree.map(jnp.add, carry, part_gradient(params, part, part_key)), None

    # Strided parts: each device cuts the rows it has. Contiguous ones would move the whole batch.
    split = {name: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}
    zero = (jax.tree.map(jnp.zeros_like, params), Sums(*jnp.zeros(len(Sums._fields))))
    return jax.lax.scan(add_part, zero, (jnp.arange(parts), split))[0]


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    vocabulary: Vocabulary | None = None,
    layout: Layout = ANYWHERE,
) -> tuple[TrainState, dict[str, Array]]:
    """One update, and its metrics as float32 scalars.

    A batch that is not masked is masked here, for which `vocabulary` must be given. The metrics of
    a mixture (`corpus_ids` in the batch) have each corpus's share of the rows, `rate/NAME`.

    When the loss or the gradient is not finite, parameters and optimizer stay as they were,
    `skipped` is 1, and only the step advances.
    """
    batch, metrics = _take_rates(config, batch)
    if "masked_lm_ids" not in batch:
        assert vocabulary is not None
        batch = mask_batch(batch, config.data, vocabulary, random_key(config.seed, state.step, MASKS))
    key = random_key(config.seed, state.step, DROPOUT)
    grads, sums = gradients(config, state.params, batch, key, layout)
    metrics |= objectives.means(sums, config.data.sentence_objective)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)

    rate = make_schedule(config.optimizer, config.train.steps)(state.step)
    updates, opt_state = make_optimizer(config.optimizer).update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    metrics |= {
        "learning_rate": jnp.asarray(rate, jnp.float32),
        "grad_norm": grad_norm,
        "param_norm": optax.tree.norm(params),
        "tokens": jnp.sum(batch["input_mask"].astype(jnp.float32)),
        "skipped": 1.0 - finite.astype(jnp.float32),
    }
    return TrainState(state.step + 1, params, opt_state), metrics


def _take_rates(config: Config, batch: Batch) -> tuple[Batch, dict[str, Array]]:
    if "corpus_ids" not in batch:
        return batch, {}
    names = [entry.partition("=")[0] for entry in config.data.mixture]
    rest = {name: values for name, values in batch.items() if name != "corpus_ids"}
    return rest, {f"rate/{name}": jnp.mean(batch["corpus_ids"] == i) for i, name in enumerate(names)}


def jit_train_step(config: Config, mesh: Mesh, vocabulary: Vocabulary | None = None) -> Any:
    """`train_step` compiled for `mesh`; the state's memory is reused for the new state."""
    layouts = state_shardings(config, mesh)
    return jax.jit(
        lambda state, batch: train_step(config, state, batch, vocabulary, rules.MeshLayout(mesh)),
        donate_argnums=0,
        in_shardings=(layouts, rules.batch_sharding(mesh)),
        out_shardings=(layouts, rules.replicated(mesh)),
    )


def jit_eval_step(config: Config, mesh: Mesh) -> Any:
    """(params, batch) to the batch's `Sums`, without dropout, compiled for `mesh`."""
    layouts = state_shardings(config, mesh)
    return jax.jit(
        lambda params, batch: objectives.pretraining_sums(config.model, params, batch, layout=rules.MeshLayout(mesh)),
        in_shardings=(layouts.params, rules.batch_sharding(mesh)),
        out_shardings=rules.replicated(mesh),
    )
