"""Softmax cross-entropy, computed from logits or from the two factors of the logits.

All functions return weighted sums over entries. An entry of weight 0 adds nothing, whatever its
label is. Softmax is computed in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# Number of entries whose logits are in memory at a time. Matrix products with fewer than 256 rows
# are slow.
MAX_ROWS, MIN_ROWS = 1024, 256


class CrossEntropy(NamedTuple):
    """Sums over entries, float32 []."""

    loss: Array
    """Sum of the negative log-likelihoods in nats, times the weights."""
    correct: Array
    """Sum of the weights of entries in which no logit is higher than that of the label."""
    weight: Array
    """Sum of the weights."""


def weighted_cross_entropy(logits: Array, labels: Array, weights: Array) -> CrossEntropy:
    """Return the sums for `logits` [..., C] under `labels` [...] in 0..C-1 and `weights` [...]."""
    logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
    # A gather is not used, because its gradient is a scatter, which needs extra passes over all
    # logits.
    picked = jnp.sum(jnp.where(_is_label(logits, labels), logits, 0), axis=-1)
    losses, best, _ = _compared(logits, picked)
    return CrossEntropy(_sum(losses, weights), _sum(best, weights), jnp.sum(weights))


def _compared(logits: Array, picked: Array) -> tuple[Array, Array, Array]:
    """Return (loss, is best, softmax) of each entry; `picked` has the logits of the labels.

    "Is best" is 1 if no other logit of the entry is higher. It is computed without argmax, because
    compilers for CPUs compute an argmax one element at a time.
    """
    # The maximum cancels out of the loss, so it has no gradient to follow.
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    exponentials = jnp.exp(logits - highest[..., None])
    total = jnp.sum(exponentials, axis=-1)
    loss = jnp.log(total) + highest - picked
    is_best = (picked >= highest).astype(jnp.float32)
    return loss, is_best, exponentials / total[..., None]


def _is_label(logits: Array, labels: Array) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]


def _sum(values: Array, weights: Array) -> Array:
    # Entries of weight 0 are set to 0 before the product, because their loss may be infinite.
    return jnp.sum(jnp.where(weights > 0, values, 0) * weights)


def product_cross_entropy(
    x_NxE: Array, table_VxE: Array, bias_V: Array, labels_N: Array, weights_N: Array
) -> CrossEntropy:
    """Return `weighted_cross_entropy` of the logits `x @ table.T + bias`.

    `labels` are integers in 0..V-1. The logits of all entries are never in memory at once: about
    `MAX_ROWS` entries are processed at a time, and if a gradient is needed, it is computed together
    with the loss from the same logits. Matrix products are in the dtype of `x`. `table`, `bias` and
    their gradients are float32. There is no gradient for the weights and no second derivative.
    """
    weights = weights_N.astype(jnp.float32)
    loss, correct = _product(x_NxE, table_VxE, bias_V, labels_N, weights)
    return CrossEntropy(loss, correct, jnp.sum(weights))


class _Entries(NamedTuple):
    """Inputs, labels and weights of N entries: [N, E], [N] and [N]."""

    x: Array
    labels: Array
    weights: Array


@jax.custom_vjp
def _product(
    x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> tuple[Array, Array]:
    # Called where no gradient is wanted; JAX calls `_forward` in its place where one is.
    (loss, correct), _ = _over_parts(partial(_value, table, bias), _Entries(x, labels, weights))
    return loss, correct


def _forward(
    x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> tuple[tuple[Array, Array], Any]:
    sums, d_x = _over_parts(partial(_value_and_gradient, table, bias), _Entries(x, labels, weights))
    loss, correct, d_table, d_bias = sums
    return (loss, correct), (d_x, d_table, d_bias)


def _backward(kept: tuple[Array, Array, Array], cotangents: tuple[Array, Array]) -> Any:
    d_x, d_table, d_bias = kept
    # Gradients were computed for a cotangent of 1 and are linear in it. The count of correct
    # entries is constant nearly everywhere, so its cotangent is not used.
    d_loss = cotangents[0]
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


def _compared_products(table: Array, bias: Array, entries: _Entries) -> tuple[Array, Array, Array]:
    """Return `_compared` of the entries' logits."""
    x = entries.x
    products = jnp.einsum("ne,ve->nv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)
    logits = products + bias[None, :]
    # A gather is fine here, because it is not differentiated.
    picked = jnp.take_along_axis(logits, entries.labels[:, None], axis=1)[:, 0]
    return _compared(logits, picked)


def _value(table: Array, bias: Array, entries: _Entries) -> tuple[tuple[Array, Array], None]:
    losses, best, _ = _compared_products(table, bias, entries)
    return (_sum(losses, entries.weights), _sum(best, entries.weights)), None


def _value_and_gradient(
    table: Array, bias: Array, entries: _Entries
) -> tuple[tuple[Array, ...], Array]:
    """Return ((loss, correct, gradient of table, gradient of bias), gradient of x)."""
    x, labels, weights = entries
    losses, best, probabilities = _compared_products(table, bias, entries)
    # The derivative of the loss by the logits: softmax minus 1 at the label.
    slopes = (probabilities - _is_label(probabilities, labels)) * weights[:, None]
    d_logits = slopes.astype(x.dtype)
    d_x = jnp.einsum("nv,ve->ne", d_logits, table.astype(x.dtype))
    d_table = jnp.einsum("nv,ne->ve", d_logits, x, preferred_element_type=jnp.float32)
    # The sum over rows is written as a matrix product, because compilers for CPUs make slow code
    # for the sum. It has the highest precision, because GPUs would round float32 factors to TF32.
    ones = jnp.ones((1, slopes.shape[0]))
    d_bias = jnp.dot(ones, slopes, precision=jax.lax.Precision.HIGHEST)[0]
    return (_sum(losses, weights), _sum(best, weights), d_table, d_bias), d_x
