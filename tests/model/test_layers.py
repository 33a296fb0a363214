import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from bertjax.model.layers import ACTIVATIONS, Linear, Norm, dropout
from bertjax.model.layout import ANYWHERE
from tests.factory import SMALL_MODEL


def test_layer_norm_keeps_its_digits_where_the_mean_dwarfs_the_deviation():
    rng = np.random.default_rng(0)
    x = rng.normal(10.0, 0.02, (64, SMALL_MODEL.hidden_size)).astype(np.float32)
    norm = Norm(SMALL_MODEL)
    params = norm.init(jax.random.key(0), x)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-12)
    assert np.abs(norm.apply(params, x) - exact).max() < 1e-3


@pytest.mark.parametrize("length", [1e-3, 1.0, 100.0])
def test_rms_norm_and_its_gradients_are_those_of_its_formula(length):
    config = dataclasses.replace(
        SMALL_MODEL, norm_type="rms_norm", layer_norm_eps=1e-5, biases=("mlm",)
    )
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 8, 16)).astype(np.float32) * np.float32(length)
    scale = rng.normal(1, 0.1, 16).astype(np.float32)

    def formula(x, scale):
        mean_square = jnp.mean(x**2, axis=-1, keepdims=True)
        return x / jnp.sqrt(mean_square + 1e-5) * scale[None, :]

    def ours(x, scale):
        return Norm(config).apply({"params": {"scale": scale}}, x)

    def results(function):
        def loss(x, scale):
            return jnp.sum(function(x, scale) * weights)

        forward = jax.jvp(function, (x, scale), (weights, scale))[1]
        return function(x, scale), jax.grad(loss, (0, 1))(x, scale), forward

    for a, b in zip(jax.tree.leaves(results(ours)), jax.tree.leaves(results(formula)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_gelu_is_the_exact_one():
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert np.allclose(ACTIVATIONS["gelu"](x), exact, atol=1e-6)
    assert np.abs(ACTIVATIONS["gelu_tanh"](x) - np.array(exact)).max() > 1e-4


def exact_gelu(x):
    """Value and slope in float64."""
    below = 0.5 * math.erfc(-x / math.sqrt(2))
    return x * below, below + x * math.exp(-min(x * x, 1e3) / 2) / math.sqrt(2 * math.pi)


def exact_gelu_tanh(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    d_inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    below = 0.5 * (1 + math.tanh(inner))
    return x * below, below + (0.5 * x * d_inner / math.cosh(inner) ** 2 if abs(inner) < 300 else 0)


def exact_silu(x):
    share = 1 / (1 + math.exp(min(-x, 700)))
    return x * share, share + x * share * (1 - share)


@pytest.mark.parametrize(
    ("name", "exact", "absolute"),
    [("gelu", exact_gelu, 1e-6), ("gelu_tanh", exact_gelu_tanh, 2e-5), ("silu", exact_silu, 3e-6)],
)
@pytest.mark.parametrize(("dtype", "unit"), [(jnp.float32, 0), (jnp.bfloat16, 2**-8)])
def test_activations_and_their_slopes_in_either_direction_are_exact_to_their_types_rounding(
    name, exact, absolute, dtype, unit
):
    given = jnp.asarray(np.concatenate([np.linspace(-12, 12, 2001), [-1e30, 1e30, 0.0]]), dtype)
    values, slopes = zip(*(exact(float(x)) for x in given), strict=True)
    function = ACTIVATIONS[name]
    actual = function(given)
    backward = jax.grad(lambda x: function(x).astype(jnp.float32).sum())(given)
    forward = jax.jvp(function, (given,), (jnp.ones_like(given),))[1]
    for array, expected in ((actual, values), (backward, slopes), (forward, slopes)):
        assert array.dtype == dtype
        assert np.allclose(array.astype(jnp.float32), expected, rtol=unit, atol=absolute)


def dropped_from(x, rate, key, bits="threefry"):
    config = dataclasses.replace(SMALL_MODEL, dropout_bits=bits)
    return dropout(config, x, rate, key, ANYWHERE, ("batch", "length", None))


@pytest.mark.parametrize("bits", ["threefry", "hash", "rbg"])
@given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_dropout_zeroes_its_rate_and_keeps_the_mean(bits, rate, seed):
    x = jnp.ones((4, 100, 500))
    dropped = np.asarray(dropped_from(x, rate, jax.random.key(seed), bits))
    kept = (dropped != 0).mean()
    error = 5 * np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept - (1 - rate)) < error + 1 / 65_536
    assert dropped.mean() == pytest.approx(1.0, abs=(error + 1e-5) / (1 - rate))


def test_dropout_without_a_key_or_a_rate_is_the_input_itself():
    x = jnp.arange(6.0).reshape(1, 2, 3)
    assert dropped_from(x, 0.5, None) is x
    assert dropped_from(x, 0.0, jax.random.key(0)) is x


@pytest.mark.parametrize("feeds_kernel", [False, True])
def test_in_bfloat16_a_biass_gradient_is_summed_over_all_tokens_in_float32(feeds_kernel):
    config = dataclasses.replace(SMALL_MODEL, dtype="bfloat16")
    layer = Linear(config, (8,), (8,), ("embed", None), feeds_kernel)
    x = jnp.ones((128, 256, 8), jnp.bfloat16)
    params = nn.unbox(layer.init(jax.random.key(0), x))
    gradient = jax.grad(lambda params: layer.apply(params, x).astype(jnp.float32).sum())(params)
    assert np.allclose(gradient["params"]["bias"], 128 * 256)


def test_in_bfloat16_dropout_scales_by_what_it_says():
    dropped = dropped_from(
        jnp.ones((8, 256, 256), jnp.bfloat16), 0.1, jax.random.key(0), "hash"
    ).astype(jnp.float32)
    assert set(np.unique(dropped)) == {0.0, float(jnp.bfloat16(1 / 0.9))}
