"""Softmax cross-entropy, computed from logits or from the two factors of the logits.

All functions return weighted sums over entries. An entry of weight 0 adds nothing, whatever its
label is. Softmax is computed in float32. With a `z_loss`, the loss to minimize has a second term:
z_loss times the squared logarithm of the softmax's denominator (arXiv 2204.02311, section 5). It
keeps this logarithm near 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.model.heads.soft_targets import weighted_sum

# Number of entries whose logits are in memory at a time. Matrix products with fewer than 256 rows
# are slow.
MAX_ROWS, MIN_ROWS = 1024, 256


class CrossEntropy(NamedTuple):
    """Sums over entries, float32 []."""

    loss: Array
    """Sum of the losses to minimize, times the weights: negative log-likelihoods in nats, and what
    `z_loss` adds to them.
    """
    correct: Array
    """Sum of the weights of entries in which no logit is higher than that of the label."""
    weight: Array
    """Sum of the weights."""
    nll: Array
    """Sum of the negative log-likelihoods alone, to report; with a `z_loss` it has no gradient."""


def weighted_cross_entropy(
    logits: Array, labels: Array, weights: Array, *, z_loss: float = 0.0
) -> CrossEntropy:
    """Return the sums for `logits` [..., C] under `labels` [...] in 0..C-1 and `weights` [...]."""
    logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
    # A gather is not used, because its gradient is a scatter, which needs extra passes over all
    # logits.
    picked = jnp.sum(jnp.where(_is_label(logits, labels), logits, 0), axis=-1)
    compared = _compared(logits, picked)
    return cross_entropy_sums(compared.log_total, picked, compared.highest, weights, z_loss)


def cross_entropy_sums(
    log_total: Array, picked: Array, highest: Array, weights: Array, z_loss: float
) -> CrossEntropy:
    """Return the sums from three numbers for each entry, float32 of the shape of `weights`.

    These are the logarithm of the softmax's denominator, the logit of the label, and the largest
    logit.
    """
    weights = weights.astype(jnp.float32)
    # Without argmax, because compilers for CPUs compute an argmax one element at a time.
    correct = weighted_sum((picked >= highest).astype(jnp.float32), weights)
    nll = weighted_sum(log_total - picked, weights)
    weight = jnp.sum(weights)
    if not z_loss:
        return CrossEntropy(nll, correct, weight, nll)
    squares = weighted_sum(jnp.square(log_total), weights)
    return CrossEntropy(nll + z_loss * squares, correct, weight, jax.lax.stop_gradient(nll))


class _Compared(NamedTuple):
    """What the logits of each entry give: [...], and [..., C] for the softmax."""

    picked: Array
    """The logit of the label."""
    highest: Array
    """The largest logit, without a gradient."""
    log_total: Array
    """Logarithm of the softmax's denominator, the sum of the exponentials of all logits."""
    softmax: Array


def _compared(logits: Array, picked: Array) -> _Compared:
    """Return what the logits give; `picked` has those of the labels."""
    # The maximum cancels out of the loss, so it has no gradient to follow.
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    exponentials = jnp.exp(logits - highest[..., None])
    total = jnp.sum(exponentials, axis=-1)
    log_total = jnp.log(total) + highest
    return _Compared(picked, highest, log_total, exponentials / total[..., None])


def _is_label(logits: Array, labels: Array) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]


def product_cross_entropy(
    x_NxE: Array,
    table_VxE: Array,
    bias_V: Array,
    labels_N: Array,
    weights_N: Array,
    *,
    z_loss: float = 0.0,
) -> CrossEntropy:
    """Return `weighted_cross_entropy` of the logits `x @ table.T + bias`.

    `labels` are integers in 0..V-1. The logits of all entries are never in memory at once: about
    `MAX_ROWS` entries are processed at a time, and if a gradient is needed, it is computed together
    with the loss from the same logits. Matrix products are in the dtype of `x`. `table`, `bias` and
    their gradients are float32. There is no gradient for the weights and no second derivative.
    """
    weights = weights_N.astype(jnp.float32)
    loss, correct, nll = _product(z_loss, x_NxE, table_VxE, bias_V, labels_N, weights)
    # Without a `z_loss` the two are equal, and this one has a gradient.
    return CrossEntropy(loss, correct, jnp.sum(weights), nll if z_loss else loss)


class _Entries(NamedTuple):
    """Inputs, labels and weights of N entries: [N, E], [N] and [N]."""

    x: Array
    labels: Array
    weights: Array


class _Sums(NamedTuple):
    """The sums over entries of which the first alone has a gradient."""

    loss: Array
    correct: Array
    nll: Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(
    z_loss: float, x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> _Sums:
    # Called where no gradient is wanted; JAX calls `_forward` in its place where one is.
    entries = _Entries(x, labels, weights)
    return _over_parts(partial(_value, z_loss, table, bias), entries)[0]


def _forward(
    z_loss: float, x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> tuple[_Sums, Any]:
    work = partial(_value_and_gradient, z_loss, table, bias)
    (sums, d_table, d_bias), d_x = _over_parts(work, _Entries(x, labels, weights))
    return sums, (d_x, d_table, d_bias)


def _backward(_z_loss: float, kept: tuple[Array, Array, Array], cotangents: _Sums) -> Any:
    d_x, d_table, d_bias = kept
    # Gradients were computed for a cotangent of 1 and are linear in it. The count of correct
    # entries is constant nearly everywhere, so its cotangent is not used; nor is that of the
    # negative log-likelihood, which is for reports.
    d_loss = cotangents.loss
    return (d_x * d_loss).astype(d_x.dtype), d_table * d_loss, d_bias * d_loss, None, None


_product.defvjp(_forward, _backward)


def _over_parts(work: Callable[[_Entries], tuple[Any, Any]], entries: _Entries) -> tuple[Any, Any]:
    """Call `work` on parts of the entries; sum its first results and join its second ones."""
    count = entries.x.shape[0]
    size = _part_size(count)
    if size == count:
        return work(entries)
    parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), entries)

    def add(sums: Any, part: _Entries) -> tuple[Any, Any]:
        part_sums, each = work(part)
        return jax.tree.map(jnp.add, sums, part_sums), each

    first_part = jax.tree.map(lambda x: x[0], parts)
    sum_shapes, _ = jax.eval_shape(work, first_part)
    zeros = jax.tree.map(jnp.zeros_like, sum_shapes)
    sums, each = jax.lax.scan(add, zeros, parts)
    return sums, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), each)


def _part_size(count: int) -> int:
    """Return the largest divisor of `count` in `MIN_ROWS`..`MAX_ROWS`; `count` if there is none."""
    # A divisor, since a scan takes parts of one size.
    for size in range(min(MAX_ROWS, count), MIN_ROWS - 1, -1):
        if count % size == 0:
            return size
    return count


def _compared_products(table: Array, bias: Array, entries: _Entries) -> _Compared:
    """Return `_compared` of the entries' logits."""
    x = entries.x
    products = jnp.einsum("ne,ve->nv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)
    logits = products + bias[None, :]
    # A gather is fine here, because it is not differentiated.
    picked = jnp.take_along_axis(logits, entries.labels[:, None], axis=1)[:, 0]
    return _compared(logits, picked)


def _summed(z_loss: float, compared: _Compared, weights: Array) -> _Sums:
    picked, highest, log_total, _softmax = compared
    sums = cross_entropy_sums(log_total, picked, highest, weights, z_loss)
    return _Sums(sums.loss, sums.correct, sums.nll)


def _value(z_loss: float, table: Array, bias: Array, entries: _Entries) -> tuple[_Sums, None]:
    return _summed(z_loss, _compared_products(table, bias, entries), entries.weights), None


def _value_and_gradient(
    z_loss: float, table: Array, bias: Array, entries: _Entries
) -> tuple[tuple[_Sums, Array, Array], Array]:
    """Return ((sums, gradient of table, gradient of bias), gradient of x)."""
    x, labels, weights = entries
    compared = _compared_products(table, bias, entries)
    probabilities = compared.softmax
    # The derivative of the negative log-likelihood by the logits: softmax minus 1 at the label.
    # That of the logarithm of the denominator is softmax.
    slopes = probabilities - _is_label(probabilities, labels)
    if z_loss:
        slopes += probabilities * (2 * z_loss * compared.log_total)[:, None]
    slopes *= weights[:, None]
    d_logits = slopes.astype(x.dtype)
    d_x = jnp.einsum("nv,ve->ne", d_logits, table.astype(x.dtype))
    d_table = jnp.einsum("nv,ne->ve", d_logits, x, preferred_element_type=jnp.float32)
    # The sum over rows is written as a matrix product, because compilers for CPUs make slow code
    # for the sum. It has the highest precision, because GPUs would round float32 factors to TF32.
    ones = jnp.ones((1, slopes.shape[0]))
    d_bias = jnp.dot(ones, slopes, precision=jax.lax.Precision.HIGHEST)[0]
    return (_summed(z_loss, compared, weights), d_table, d_bias), d_x
