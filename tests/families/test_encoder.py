"""What holds of BERT's encoder holds of its heirs': packing, loops, rematerialization, bfloat16."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax
from bertjax.model.attention import attention
from bertjax.model.attention.attention import scored
from bertjax.training.pretraining_loss import pretraining_sums
from tests.families.shapes import (
    DROPOUT,
    NAMES,
    one_input_a_row,
    packed,
    packed_batch,
    parameters,
    shape_of,
)

# They compile some programs for each family.
pytestmark = pytest.mark.slow


@partial(jax.jit, static_argnums=0)
def run(config, params, batch, key=None):
    """Hidden states, and the value and gradient of the loss, over the sum of the weights."""

    def loss(params):
        sums = pretraining_sums(config, params, batch, key=key)
        return sums.mlm_loss / sums.mlm_count, sums

    hidden = bertjax.encode(config, params, batch, key=key).hidden_BxLxD
    return hidden, jax.value_and_grad(loss, has_aux=True)(params)


def relative(a, b):
    """The largest difference, relative to the largest element of `b`."""
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


def assert_near(largest, what, found, expected, bound=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest(what, relative(np.asarray(a), np.asarray(b)), bound)


@pytest.mark.parametrize("name", NAMES)
def test_packed_inputs_are_as_each_alone(largest, name):
    config = shape_of(name)
    params = parameters(config)
    alone = one_input_a_row(0, 8)
    together = packed(alone, 4)
    places = together.pop("places")
    hidden, sums_and_gradients = run(config, params, together)
    hidden_alone, expected = run(config, params, alone)
    for index, (row, first) in enumerate(places):
        size = alone["input_mask"][index].sum()
        found = hidden[row, first : first + size]
        largest("packed inputs, hidden states", relative(found, hidden_alone[index, :size]), 1e-5)
    # The rows are fewer than the inputs.
    (loss, sums), gradients = sums_and_gradients
    (loss_alone, sums_alone), gradients_alone = expected
    assert sums.mlm_count == sums_alone.mlm_count
    assert_near(largest, "packed inputs, losses", loss, loss_alone, 1e-6)
    assert_near(largest, "packed inputs, gradients", gradients, gradients_alone)


WAYS = {
    "without a loop": {"scan_unroll": 7},
    "a longer loop": {"scan_unroll": 2},
    "remat dots": {"remat": "dots"},
    "remat heads": {"remat": "heads"},
    "remat full": {"remat": "full"},
    "remat full without a loop": {"remat": "full", "scan_unroll": 7},
}


@pytest.mark.parametrize("name", NAMES)
def test_ways_to_run_the_layers_give_the_same_losses_and_gradients(largest, name):
    config = shape_of(name, **DROPOUT)
    params, batch, key = parameters(config), packed_batch(0, 4), jax.random.key(3)
    expected = run(config, params, batch, key)
    for way, changes in WAYS.items():
        found = run(dataclasses.replace(config, **changes), params, batch, key)
        assert_near(largest, f"layers {way}, of several families", found, expected)


def products(config):
    """The matrix products in the program of the gradient."""
    params = jax.eval_shape(lambda: bertjax.init(config, jax.random.key(0)))
    batch = {"input_ids": np.ones((1, 16), np.int32)}

    def total(params):
        return bertjax.encode(config, params, batch).hidden_BxLxD.sum()

    return str(jax.make_jaxpr(jax.grad(total))(params)).count("dot_general[")


@pytest.mark.parametrize(
    "config",
    [shape_of(name, num_hidden_layers=3, layer_mix=False, local_attention=0) for name in NAMES]
    + [shape_of("eurobert", num_hidden_layers=3, norm_place="both")],
)
def test_remat_dots_computes_no_product_with_a_parameter_again(config):
    # Of the layer's program: the scores, and with relative positions their two products.
    scores = 3 if config.relative_positions else 1
    dots = dataclasses.replace(config, remat="dots")
    assert products(dots) == products(config) + scores


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_this_near_to_float32(largest, name):
    """The shape and the bounds of `tests/model/test_parity.py`."""
    config = shape_of(
        name,
        vocab_size=2000,
        hidden_size=256,
        num_hidden_layers=4,
        intermediate_size=1024,
        max_position_embeddings=128,
    )
    low = dataclasses.replace(config, dtype="bfloat16")
    params = bertjax.init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {
        "input_ids": rng.integers(5, 2000, (4, 128)).astype(np.int32),
        "masked_lm_positions": np.sort(rng.integers(0, 128, (4, 20))).astype(np.int32),
        "masked_lm_ids": rng.integers(5, 2000, (4, 20)).astype(np.int32),
        "masked_lm_weights": np.ones((4, 20), np.float32),
    }
    exact, ((loss, _), gradient) = run(config, params, batch)
    rounded, ((low_loss, _), low_gradient) = run(low, params, batch)
    apart = np.asarray(exact) - np.asarray(rounded, np.float32)
    deviation = float(np.sqrt(np.mean(np.square(exact))))
    root = float(np.sqrt(np.mean(np.square(apart)))) / deviation
    largest(f"bfloat16, {name}: hidden states, root of the mean square", root, 0.01)
    largest(f"bfloat16, {name}: hidden states, largest", np.abs(apart).max() / deviation, 0.1)
    largest(f"bfloat16, {name}: loss, relative", abs(float(low_loss - loss) / float(loss)), 1e-3)
    difference = jax.tree.map(jnp.subtract, gradient, low_gradient)
    share = norm(difference) / norm(gradient)
    largest(f"bfloat16, {name}: whole gradient, relative", share, 0.02)


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


@pytest.mark.parametrize("name", ["modernbert", "neobert", "eurobert"])
def test_long_rows_are_as_with_whole_matrices_of_scores(largest, name, monkeypatch):
    """2,304 tokens in three inputs, a window of 64: in chunks and in blocks."""
    window = {"local_attention": 64} if name == "modernbert" else {}
    config = shape_of(name, max_position_embeddings=4096, num_hidden_layers=4, **window)
    params, rng = parameters(config), np.random.default_rng(0)
    sizes = np.array([1000, 1200, 104])
    batch = {
        "input_ids": rng.integers(5, 64, (1, 2304)).astype(np.int32),
        "pack_ids": np.repeat([1, 2, 3], sizes)[None, :].astype(np.int32),
        "position_ids": np.concatenate([np.arange(size) for size in sizes])[None, :],
        "masked_lm_positions": np.sort(rng.integers(0, 2304, (1, 50))).astype(np.int32),
        "masked_lm_ids": rng.integers(5, 64, (1, 50)).astype(np.int32),
        "masked_lm_weights": np.ones((1, 50), np.float32),
    }
    found = run(config, params, batch)
    run.clear_cache()
    monkeypatch.setattr(attention, "_is_chunked", lambda *_: False)
    local = partial(scored, window=config.local_attention)
    monkeypatch.setattr(attention, "_local_attention", local)
    expected = run(config, params, batch)
    assert_near(largest, "long rows of several families", found, expected)
