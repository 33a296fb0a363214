from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertjax.model.heads import cross_entropy
from bertjax.model.heads.cross_entropy import product_cross_entropy, weighted_cross_entropy


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 6),
    classes=st.integers(2, 9),
    scale=st.floats(0.1, 100),
)
def test_agrees_with_logs_of_probabilities(seed, rows, classes, scale):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, classes)) * scale).astype(np.float32)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    weights = rng.random(rows).astype(np.float32)
    exact = logits.astype(np.float64)
    exact = exact - exact.max(-1, keepdims=True)
    losses = np.log(np.exp(exact).sum(-1)) - exact[np.arange(rows), labels]
    loss, correct, weight, nll = jax.jit(weighted_cross_entropy)(logits, labels, weights)
    assert float(nll) == float(loss)
    assert float(loss) == pytest.approx((losses * weights).sum(), rel=1e-4, abs=1e-4)
    assert float(correct) == pytest.approx(
        (weights * (logits.argmax(-1) == labels)).sum(), rel=1e-5
    )
    assert float(weight) == pytest.approx(weights.sum(), rel=1e-5)


def test_an_entry_of_weight_zero_adds_nothing_even_where_its_loss_is_not_finite():
    logits = np.array([[0.0, 0.0], [np.inf, 0.0]], np.float32)
    targets = np.array([0, 1]), np.array([1.0, 0.0])
    assert float(weighted_cross_entropy(logits, *targets).loss) == pytest.approx(
        np.log(2), rel=1e-6
    )
    squared = weighted_cross_entropy(logits, *targets, z_loss=1.0)
    assert float(squared.loss) == pytest.approx(np.log(2) + np.log(2) ** 2, rel=1e-6)


def by_scores(x, table, bias, labels, weights, z_loss=0.0):
    scores = (
        jnp.einsum("ne,ve->nv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)
        + bias[None, :]
    )
    return weighted_cross_entropy(scores, labels, weights, z_loss=z_loss)


def drawn(seed, rows, width, classes, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    x, table, bias = (
        rng.normal(size=s).astype(np.float32) for s in ((rows, width), (classes, width), (classes,))
    )
    weights = rng.random(rows).astype(np.float32) * rng.integers(0, 2, rows)
    return (jnp.asarray(x, dtype), table, bias), (rng.integers(0, classes, rows), weights)


# One program for each way and shape: operation by operation there are dozens.
@partial(jax.jit, static_argnums=0)
def values_and_gradients(way, inputs, targets):
    """A way's values, and the gradients of twice the loss."""

    def loss(*inputs):
        actual = way(*inputs, *targets)
        return 2 * actual.loss, actual

    (_, actual), gradient = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)
    return actual, way(*inputs, *targets), gradient


def compared(inputs, targets):
    ways = product_cross_entropy, by_scores
    return [jax.tree.leaves(values_and_gradients(way, inputs, targets)) for way in ways]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    rows=st.sampled_from([1, 7, 40]),
    # Not 1: then a score is one multiplication, which the compiler repeats in what reads it and may
    # join with an addition there, so that the label's score differs from the largest by its rounding.
    width=st.sampled_from([2, 9]),
    classes=st.sampled_from([2, 50]),
)
@example(seed=0, rows=2 * 1024, width=8, classes=20)
@example(seed=1, rows=3 * 900, width=8, classes=20)
@example(seed=2, rows=1031, width=8, classes=20)
def test_of_products_it_is_that_of_their_scores_and_so_are_the_gradients(
    largest, seed, rows, width, classes
):
    actual, expected = compared(*drawn(seed, rows, width, classes))
    difference = max(
        float(np.linalg.norm(a - b) / max(1, np.linalg.norm(b)))
        for a, b in zip(actual, expected, strict=True)
    )
    largest("cross-entropy of products, with gradients", difference, 2e-6)


def test_of_products_in_bfloat16_the_gradients_differ_by_its_rounding_only(largest):
    actual, expected = compared(*drawn(0, 64, 16, 100, jnp.bfloat16))
    difference = max(
        float(
            np.linalg.norm((a - b).astype(np.float32))
            / max(1, np.linalg.norm(b.astype(np.float32)))
        )
        for a, b in zip(actual, expected, strict=True)
    )
    largest("cross-entropy of products, bfloat16", difference, 1e-2)


def plain(z_loss, x, table, bias, labels, weights):
    """The losses to minimize, and those without the term of `z_loss`, as two lines of JAX."""
    logits = x @ table.T + bias[None, :]
    log_totals = jax.scipy.special.logsumexp(logits, axis=-1)
    losses = log_totals - logits[jnp.arange(logits.shape[0]), labels]
    return jnp.sum(weights * (losses + z_loss * log_totals**2)), jnp.sum(weights * losses)


@pytest.mark.parametrize("way", [product_cross_entropy, by_scores])
def test_z_loss_adds_the_squared_log_of_the_denominator_to_the_loss_alone(largest, way):
    check_z_loss(largest, way, seed=0, rows=2 * 1024, z_loss=0.3)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31), rows=st.sampled_from([1, 40]), z_loss=st.sampled_from([1e-4, 0.3])
)
@pytest.mark.parametrize("way", [product_cross_entropy, by_scores])
def test_z_loss_of_drawn_inputs_is_added_to_the_loss_alone(largest, way, seed, rows, z_loss):
    check_z_loss(largest, way, seed, rows, z_loss)


def check_z_loss(largest, way, seed, rows, z_loss):
    inputs, targets = drawn(seed, rows, 9, 50)

    def actual_loss(*inputs):
        sums = way(*inputs, *targets, z_loss=z_loss)
        return 2 * sums.loss, (sums.loss, sums.nll)

    def expected_loss(*inputs):
        loss, nll = plain(z_loss, *inputs, *targets)
        return 2 * loss, (loss, nll)

    actual = jax.tree.leaves(jax.value_and_grad(actual_loss, (0, 1, 2), has_aux=True)(*inputs))
    expected = jax.tree.leaves(jax.value_and_grad(expected_loss, (0, 1, 2), has_aux=True)(*inputs))
    for a, b in zip(actual, expected, strict=True):
        difference = float(np.linalg.norm(a - b) / max(1, np.linalg.norm(b)))
        largest(f"z-loss, {way.__name__}", difference, 2e-6)


@pytest.mark.parametrize("way", [product_cross_entropy, by_scores])
def test_with_z_loss_the_likelihood_is_for_reports_and_has_no_gradient(way):
    inputs, targets = drawn(0, 8, 4, 6)
    slope = jax.grad(lambda x: way(x, *inputs[1:], *targets, z_loss=0.1).nll)(inputs[0])
    assert not np.any(slope)
    assert np.any(jax.grad(lambda x: way(x, *inputs[1:], *targets).nll)(inputs[0]))


def test_of_products_no_more_scores_than_of_some_rows_are_in_memory():
    rows, classes = 4 * cross_entropy.MAX_ROWS, 1000
    (x, table, bias), targets = drawn(0, rows, 8, classes)
    memory = {}
    for way in (product_cross_entropy, by_scores):
        gradient = jax.jit(
            jax.grad(lambda *inputs, way=way: way(*inputs, *targets).loss, (0, 1, 2))
        )
        memory[way] = gradient.lower(x, table, bias).compile().memory_analysis().temp_size_in_bytes
    assert memory[product_cross_entropy] < memory[by_scores] / 2
