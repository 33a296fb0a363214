"""Weights that become 0 during fine-tuning and stay 0: by magnitude on a schedule, or N:M.

The zeros of the parameters are the mask, and there is no other. So a checkpoint has it, a run goes
on bit for bit, and evaluations and exports see the zeros.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import Config
from bertjax.config.sparsity import Pattern, pattern_of
from bertjax.model.functional import Params
from bertjax.training.optimization.algorithms.tensors import inputs_of, is_kernel_of_layers

INFINITY_BITS = 0x7F80_0000  # of float32; no magnitude is above it


class SparsitySchedule(NamedTuple):
    """When the share of zeros rises, in updates that were made."""

    begin: int
    end: int
    """From here on the share is the final one; 1 at least, as no update comes before the first."""
    interval: int

    @property
    def stages(self) -> int:
        """Number of rises; the last one is at `end`, also where the interval does not divide."""
        return math.ceil((self.end - self.begin) / self.interval)


def sparsity_schedule(config: Config) -> SparsitySchedule:
    """Return the schedule of a run whose number of steps is known (`finetune.resolve`)."""
    options, steps = config.finetune, config.train.steps
    begin = round(options.sparsity_begin * steps)
    # A pattern has no schedule.
    end = begin if options.sparsity_pattern else round(options.sparsity_end * steps)
    return SparsitySchedule(begin, max(begin, end, 1), options.sparsity_interval)


def is_reached(config: Config, step: int) -> bool:
    """Return True if parameters after `step` updates have all the zeros of the configuration."""
    return not config.finetune.makes_sparse or step >= sparsity_schedule(config).end


def share_at(config: Config, stage: int) -> float:
    """Return the share of zeros after a stage of the schedule, 0 to `finetune.sparsity`.

    It is s (1 - (1 - p)^3), where p is the part of the schedule that is over: equation 1 of
    arXiv 1710.01878, from 0.
    """
    schedule, final = sparsity_schedule(config), config.finetune.sparsity
    if stage >= schedule.stages:
        return final
    over = stage * schedule.interval / (schedule.end - schedule.begin)
    return final * (1 - (1 - over) ** 3)


def stop_zeros(config: Config, params: Params, step: Array) -> Params:
    """Return `params`, where weights that have become 0 get no gradient.

    So they add nothing to its norm, by which it is clipped.
    """
    if not config.finetune.makes_sparse:
        return params
    has_begun = step >= sparsity_schedule(config).begin

    def stopped(weights: Array) -> Array:
        return jnp.where(has_begun & (weights == 0), jax.lax.stop_gradient(weights), weights)

    return _map_kernels(lambda _, weights: stopped(weights), params)


def sparsified(config: Config, before: Params, after: Params, step: Array) -> Params:
    """Return the parameters after the update that follows `step` others.

    `before` are those before it, and `after` what it gives. Weights that were 0 stay 0, also where
    a moment would move them. If a stage of the schedule is due, the smallest weights become 0 too.
    """
    if not config.finetune.makes_sparse:
        return after
    schedule, made = sparsity_schedule(config), step + 1
    has_begun = step >= schedule.begin

    def held(_: Any, weights: Array, old: Array) -> Array:
        return jnp.where(has_begun & (old == 0), 0.0, weights)

    kept = _map_kernels(held, after, before)
    since = made - schedule.begin
    stage = jnp.where(made >= schedule.end, schedule.stages, since // schedule.interval)
    on_the_way = (since > 0) & (since % schedule.interval == 0)
    is_due = (made == schedule.end) | (on_the_way & (made < schedule.end))
    # A condition: the thresholds take 31 passes over the kernels.
    return jax.lax.cond(is_due, lambda: _with_zeros(config, kept, stage), lambda: kept)


def _with_zeros(config: Config, params: Params, stage: Array) -> Params:
    options, stages = config.finetune, sparsity_schedule(config).stages
    if options.sparsity_pattern:
        pattern = pattern_of(options.sparsity_pattern)
        return _map_kernels(lambda path, weights: of_pattern(path, weights, pattern), params)
    # Counted here in float64: a product of float32 could be off by one weight.
    shares = [share_at(config, number) for number in range(stages + 1)]

    def smallest_zeroed(_: Any, weights: Array) -> Array:
        size = math.prod(weights.shape[1:])
        counts = np.array([round(share * size) for share in shares], np.int32)
        return without_smallest(weights, jnp.asarray(counts)[stage])

    return _map_kernels(smallest_zeroed, params)


def without_smallest(kernels: Array, count: Array | int) -> Array:
    """Return kernels [N, ...] of float32 in which the `count` smallest weights of each are 0.

    Of equal magnitudes the first ones become 0. The threshold is found bit by bit. So no array is
    sorted, and devices that share a kernel exchange counts alone.
    """
    bits = _magnitudes(kernels).reshape(kernels.shape[0], -1)

    def narrowed(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        is_enough = jnp.sum(bits <= middle[:, None], axis=1) >= count
        return jnp.where(is_enough, low, middle + 1), jnp.where(is_enough, middle, high)

    # -1 is below every magnitude: the threshold where nothing is to become 0.
    lowest = jnp.full(kernels.shape[0], -1, jnp.int32)
    bounds = (lowest, jnp.full_like(lowest, INFINITY_BITS))
    threshold = jax.lax.fori_loop(0, 31, narrowed, bounds)[1][:, None]
    is_smaller, is_equal = bits < threshold, bits == threshold
    missing = count - jnp.sum(is_smaller, axis=1, keepdims=True)
    is_first = jnp.cumsum(is_equal, axis=1) <= missing
    is_zero = is_smaller | (is_equal & is_first)
    return jnp.where(is_zero.reshape(kernels.shape), 0.0, kernels)


def of_pattern(path: Any, kernels: Array, pattern: Pattern) -> Array:
    """Return kernels [N, in..., out...] in which each group of M inputs has N weights left.

    The largest stay; of equal magnitudes the later ones. `path` is the kernel's place among the
    parameters, which tells its inputs.
    """
    grouped = groups_of(path, kernels, pattern.group)
    order = jnp.argsort(_magnitudes(grouped), axis=2)
    ranks = jnp.argsort(order, axis=2)
    kept = jnp.where(ranks >= pattern.group - pattern.kept, grouped, 0.0)
    return kept.reshape(kernels.shape)


def _magnitudes(weights: Array) -> Array:
    """Return int32 numbers in the order of |weights|: the bits of floats from 0 on have it.

    As floats, those below 1e-38 would be equal to 0 on some devices, and not on others.
    """
    return jax.lax.bitcast_convert_type(jnp.abs(weights), jnp.int32)


def groups_of(path: Any, kernels: Array, group: int) -> Array:
    """Return kernels [N, in..., out...] as [N, in / M, M, out], with M = `group`."""
    inputs = inputs_of(path, kernels)
    return kernels.reshape(kernels.shape[0], inputs // group, group, -1)


def sparsity_of(params: Params) -> Array:
    """Return the share of zeros among the weights that may become 0, float32 []."""
    zeros, size = jnp.zeros((), jnp.float32), 0
    for weights in kernels_of(params).values():
        # Each count is exact; all together may be above what an int32 holds.
        zeros += jnp.sum(weights == 0).astype(jnp.float32)
        size += weights.size
    return zeros / size


def kernels_of(params: Params) -> dict[Any, Array]:
    """Return the stacked kernels whose weights may become 0, by their paths: the layers'."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path: weights for path, weights in leaves if is_kernel_of_layers(path)}


def check_zeros(config: Config, params: Params) -> float:
    """Return the share of zeros; raise `RuntimeError` if a layer's kernel has too few of them."""
    options = config.finetune
    for path, kernels in kernels_of(params).items():
        if options.sparsity_pattern:
            pattern = pattern_of(options.sparsity_pattern)
            left = jnp.sum(groups_of(path, kernels, pattern.group) != 0, axis=2)
            is_right = jnp.max(left) <= pattern.kept
        else:
            zeros = jnp.sum(kernels == 0, axis=tuple(range(1, kernels.ndim)))
            wanted = round(options.sparsity * math.prod(kernels.shape[1:]))
            is_right = jnp.min(zeros) >= wanted
        if not is_right:
            raise RuntimeError(f"{jax.tree_util.keystr(path)}: fewer zeros than were asked for")
    return float(sparsity_of(params))


def _map_kernels(function: Callable[..., Array], params: Params, *others: Params) -> Params:
    """Return `params` with `function(path, kernels, ...)` in place of the layers' kernels.

    The function also gets the kernels of `others`, trees like `params`.
    """

    def mapped(path: Any, leaf: Array, *same: Array) -> Array:
        return function(path, leaf, *same) if is_kernel_of_layers(path) else leaf

    return jax.tree_util.tree_map_with_path(mapped, params, *others)
