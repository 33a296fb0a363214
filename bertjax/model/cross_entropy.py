"""Softmax cross-entropy, of scores and of the products that scores are.

Sums over entries, each with a weight; an entry of weight 0 adds nothing, whatever its label.
Softmax is in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

MOST_ROWS, FEWEST_ROWS = (
    1024,
    256,
)  # whose scores are in memory at once; fewer make for slow matrix products


class CrossEntropy(NamedTuple):
    """Float32 scalars: what entries add up to."""

    loss: Array
    """Negative log-likelihoods in nats, times the weights."""
    correct: Array
    """The weight of the entries where no class's score is above the label's."""
    weight: Array
    """The weight of all."""


def weighted_cross_entropy(logits: Array, labels: Array, weights: Array) -> CrossEntropy:
    """Of scores `logits` [..., C] under `labels` [...] int in 0..C-1 and `weights` [...]."""
    logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
    # Not gathered: a gather's gradient is scattered, in passes of its own over all scores.
    picked = jnp.sum(jnp.where(_is_label(logits, labels), logits, 0), axis=-1)
    losses, best, _ = _compared(logits, picked)
    return CrossEntropy(_sum(losses, weights), _sum(best, weights), jnp.sum(weights))


def _compared(logits: Array, picked: Array) -> tuple[Array, Array, Array]:
    """The loss of each entry whose label's score is `picked`, 1 where that is the best score, and
    the softmax.

    Not by argmax, which compilers for CPUs work an element at a time.
    """
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    exponentials = jnp.exp(logits - highest[..., None])
    total = jnp.sum(exponentials, axis=-1)
    return (
        jnp.log(total) + highest - picked,
        (picked >= highest).astype(jnp.float32),
        exponentials / total[..., None],
    )


def _is_label(logits: Array, labels: Array) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]


def _sum(values: Array, weights: Array) -> Array:
    return jnp.sum(jnp.where(weights > 0, values, 0) * weights)


def product_cross_entropy(
    x_NxE: Array, table_VxE: Array, bias_V: Array, labels_N: Array, weights_N: Array
) -> CrossEntropy:
    """`weighted_cross_entropy` of the scores `x` times `table` plus `bias`, which are never in
    memory whole.

    Where a gradient is wanted it is worked out along with the loss, for `MOST_ROWS` rows at a time,
    while their scores are at hand. Products are in the type of `x`; `table` and `bias` are float32,
    and so are their gradients. Weights have no gradient, and there is no second derivative.
    """
    weights = weights_N.astype(jnp.float32)
    loss, correct = _product(x_NxE, table_VxE, bias_V, labels_N, weights)
    return CrossEntropy(loss, correct, jnp.sum(weights))


class _Rows(NamedTuple):
    x: Array
    labels: Array
    weights: Array


@jax.custom_vjp
def _product(
    x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> tuple[Array, Array]:
    (loss, correct), _ = _over_parts(partial(_value, table, bias), _Rows(x, labels, weights))
    return loss, correct


def _forward(
    x: Array, table: Array, bias: Array, labels: Array, weights: Array
) -> tuple[tuple[Array, Array], Any]:
    sums, d_x = _over_parts(partial(_value_and_gradient, table, bias), _Rows(x, labels, weights))
    loss, correct, d_table, d_bias = sums
    return (loss, correct), (d_x, d_table, d_bias)


def _backward(kept: tuple[Array, Array, Array], cotangents: tuple[Array, Array]) -> Any:
    d_x, d_table, d_bias = kept
    d_loss = cotangents[0]
    return (d_x * d_loss).astype(d_x.dtype), d_table * d_loss, d_bias * d_loss, None, None


_product.defvjp(_forward, _backward)


def _over_parts(work: Callable[[_Rows], tuple[Any, Any]], rows: _Rows) -> tuple[Any, Any]:
    """`work` of some rows at a time: its first result summed, its second one row by row."""
    count = rows.x.shape[0]
    size = next(
        (n for n in range(min(MOST_ROWS, count), FEWEST_ROWS - 1, -1) if count % n == 0), count
    )
    if size == count:
        return work(rows)
    parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), rows)

    def add(sums: Any, part: _Rows) -> tuple[Any, Any]:
        more, each = work(part)
        return jax.tree.map(jnp.add, sums, more), each

    zeros = jax.tree.map(
        jnp.zeros_like, jax.eval_shape(work, jax.tree.map(lambda x: x[0], parts))[0]
    )
    sums, each = jax.lax.scan(add, zeros, parts)
    return sums, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), each)


def _measured(table: Array, bias: Array, rows: _Rows) -> tuple[Array, Array, Array]:
    products = jnp.einsum(
        "ne,ve->nv", rows.x, table.astype(rows.x.dtype), preferred_element_type=jnp.float32
    )
    scores = products + bias[None, :]
    return _compared(scores, jnp.take_along_axis(scores, rows.labels[:, None], axis=1)[:, 0])


def _value(table: Array, bias: Array, rows: _Rows) -> tuple[tuple[Array, Array], None]:
    losses, best, _ = _measured(table, bias, rows)
    return (_sum(losses, rows.weights), _sum(best, rows.weights)), None


def _value_and_gradient(table: Array, bias: Array, rows: _Rows) -> tuple[tuple[Array, ...], Array]:
    losses, best, shares = _measured(table, bias, rows)
    # softmax less 1 at the label
    slopes = (shares - _is_label(shares, rows.labels)) * rows.weights[:, None]
    d_scores = slopes.astype(rows.x.dtype)
    d_x = jnp.einsum("nv,ve->ne", d_scores, table.astype(rows.x.dtype))
    d_table = jnp.einsum("nv,ne->ve", d_scores, rows.x, preferred_element_type=jnp.float32)
    # A product: compilers for CPUs are slow to sum over rows.
    d_bias = jnp.dot(jnp.ones((1, slopes.shape[0])), slopes, precision=jax.lax.Precision.HIGHEST)[0]
    return (_sum(losses, rows.weights), _sum(best, rows.weights), d_table, d_bias), d_x
