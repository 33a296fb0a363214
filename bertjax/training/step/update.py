"""A training step, a pure function of state, batch and seed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from bertjax.config import Config
from bertjax.config.data import mixture_folders
from bertjax.config.phases.resolution import phases_of
from bertjax.masking.adaptive import PieceScores, after_update, with_weights
from bertjax.model.functional import Params
from bertjax.model.layout import ANYWHERE, Layout
from bertjax.training.objective import Objective
from bertjax.training.optimization.algorithms.schedule_free import weights_between
from bertjax.training.optimization.algorithms.sophia import hutchinson
from bertjax.training.optimization.algorithms.table import ALGORITHMS
from bertjax.training.optimization.freezing import stop_frozen
from bertjax.training.optimization.mixout import mix
from bertjax.training.optimization.plan import Plan, learning_rate, plan_of
from bertjax.training.optimization.sparsity import sparsified, sparsity_of, stop_zeros
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced.sharing import update_of
from bertjax.training.step.gradients import batches_in, gradient_noise, gradients
from bertjax.training.step.state import DROPOUT, HESSIAN, MASKS, MIXOUT, TrainState, random_key
from bertjax.types import Batch


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    objective: Objective | None = None,
    layout: Layout = ANYWHERE,
    seed: ArrayLike | None = None,
    given: Params | None = None,
    plan: Plan | None = None,
    place: ArrayLike | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Return the state after one update, and the update's metrics as float32 scalars.

    `objective` is pretraining unless given; `seed` is `config.seed` unless given. `given` are
    groups that the objective reads beside the parameters (`objective.Given`). `plan` is that of
    the phase whose configuration `config` is; None: of a run without phases. `place`, float32 [],
    is the step at which learning rate and mask rate are taken where they follow a budget of time
    (`budget.record.place_of`); None: the state's step. The step counter advances by
    `batches_in(config, batch)`. For a mixture (`corpus_ids` in the batch) the metrics have each
    corpus's share of the rows, `rate/NAME`.

    When the loss or the gradient is not finite, parameters and optimizer stay as they were,
    `skipped` is 1, and only the step advances.
    """
    if plan is None:
        config, plan = without_phases(config)
    objective = objective or pretraining(config)
    seed = config.seed if seed is None else seed
    batch, metrics = _pop_corpus_rates(config, batch)
    place = state.step if place is None else place
    if state.scores is not None:
        batch = with_weights(batch, state.scores)
    batch = objective.prepare(batch, random_key(seed, state.step, MASKS), place)
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
    rate, params, opt_state = _update(config, plan, state, place, grads, hessian_diagonal)
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
    scores = _scores_after(config, state, sums, batches, finite)
    return TrainState(state.step + batches, params, opt_state, scores), metrics


def _scores_after(
    config: Config, state: TrainState, sums: Any, batches: int, finite: Array
) -> PieceScores | None:
    """Return what adaptive masks know after the update; nothing new where it was skipped."""
    if state.scores is None:
        return None
    settings = config.adaptive
    every = settings.every_steps
    # An update of several batches may jump over a multiple.
    is_due = (state.step + batches) // every > state.step // every
    right, seen = (jnp.where(finite, counts, 0) for counts in (sums.right, sums.seen))
    return after_update(state.scores, right, seen, is_due=is_due, memory=settings.memory)


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


def without_phases(config: Config) -> tuple[Config, Plan]:
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
    place: ArrayLike,
    grads: Params,
    hessian_diagonal: Callable[[], Params],
) -> tuple[ArrayLike, Params, optax.OptState]:
    """Return the learning rate at a place in the schedule; parameters and optimizer after it."""
    # By the run's step, or by the time: a counter in the optimizer would not advance where an
    # update is skipped.
    rate = learning_rate(config.optimizer, plan)(place)
    update = update_of(config)
    updates, opt_state = update(
        grads, state.opt_state, state.params, rate=rate, hessian_diagonal=hessian_diagonal
    )
    # Updates point downhill already, so they are added.
    params = jax.tree.map(lambda param, update: param + rate * update, state.params, updates)
    return rate, params, opt_state


def _pop_corpus_rates(config: Config, batch: Batch) -> tuple[Batch, dict[str, Array]]:
    """Return the batch without `corpus_ids`, and each corpus's share of its rows."""
    if "corpus_ids" not in batch:
        return batch, {}
    rest = {name: values for name, values in batch.items() if name != "corpus_ids"}
    rates = {}
    for index, name in enumerate(mixture_folders(config.data.mixture)):
        rates[f"rate/{name}"] = jnp.mean(batch["corpus_ids"] == index)
    return rest, rates
