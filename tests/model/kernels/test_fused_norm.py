"""Dropout, residual and norm as a kernel, interpreted and compiled for TPU, against plain XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertjax.config import MeshConfig, ModelConfig
from bertjax.model.kernels.fused_norm import fits
from bertjax.model.layout import ANYWHERE
from bertjax.model.residual_norm import ResidualNorm, residual_norm_kernel
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.tpu import compile_for_tpu

OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


def model(width, rate, dtype="float32"):
    return ModelConfig(
        hidden_size=width, num_attention_heads=1, hidden_dropout_prob=rate, attention_probs_dropout_prob=0.0,
        dropout_bits="hash", dtype=dtype,
    )  # fmt: skip


def drawn(seed, batch, length, width, dtype=jnp.float32):
    """x, added, scale, bias, and the output's gradient."""
    rng = np.random.default_rng(seed)
    x, added, gradient = (
        jnp.asarray(a, dtype) for a in rng.normal(rng.normal(), 1, (3, batch, length, width))
    )
    scale, bias = (jnp.asarray(a, jnp.float32) for a in rng.normal(0, 1, (2, width)))
    return (x, added, scale, bias), gradient


def compare(config, inputs, gradient, key, layout=ANYWHERE):
    """Return the largest difference from the plain norm, of output and gradients.

    Relative to the largest entry.
    """

    def fast(*inputs):
        return residual_norm_kernel(config, layout, *inputs, key, interpret=True)

    def plain(x, added, scale, bias):
        return ResidualNorm(config, ANYWHERE).apply(
            {"params": {"scale": scale, "bias": bias}}, x, added, key
        )

    def run(function):
        output, back = jax.vjp(function, *inputs)
        return output, *back(gradient)

    pairs = zip(jax.jit(lambda: run(fast))(), jax.jit(lambda: run(plain))(), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


@settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 5), length=st.sampled_from([128, 256, 640]),
    width=st.sampled_from([128, 384]), rate=st.sampled_from([0.0, 0.1, 0.5]),
)  # fmt: skip
def test_agrees_with_the_plain_norm_and_its_gradients(largest, seed, batch, length, width, rate):
    inputs, gradient = drawn(seed, batch, length, width)
    difference = compare(model(width, rate), inputs, gradient, jax.random.key(seed))
    largest("TPU norm kernel, output and gradients", difference, 1e-5)


def test_bfloat16_differs_by_its_rounding_only(largest):
    inputs, gradient = drawn(0, 3, 128, 128, jnp.bfloat16)
    difference = compare(model(128, 0.1, "bfloat16"), inputs, gradient, jax.random.key(0))
    largest("TPU norm kernel, bfloat16", difference, 2e-2)


@pytest.mark.parametrize("sizes", [{"data": 4, "tensor": 2}, {"replica": 2, "fsdp": 4}], ids=str)
def test_any_mesh_drops_the_same_elements_and_sums_the_gradients_of_scale_and_bias(sizes):
    inputs, gradient = drawn(1, 8, 128, 128)
    layout = MeshLayout(make_mesh(MeshConfig(**{"data": 1} | sizes)))
    assert compare(model(128, 0.1), inputs, gradient, jax.random.key(1), layout) < 1e-5


def test_widths_that_it_has_no_room_for_are_known():
    assert fits(128, 768)
    assert fits(512, 1024)
    assert not fits(64, 768)
    assert not fits(128, 100)
    assert not fits(128, 4096)


@pytest.mark.parametrize("rate", [0.1])
@pytest.mark.parametrize("width", [768, 1024, 3072])
@pytest.mark.parametrize(
    "topology", ["v5e:2x2", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHERS)]
)
def test_compiles_for_tpu(topology, rate, width):
    config = model(width, rate, "bfloat16")

    def step(x, added, scale, bias, gradient, words):
        def fast(*inputs):
            return residual_norm_kernel(config, ANYWHERE, *inputs, jax.random.wrap_key_data(words))

        output, back = jax.vjp(fast, x, added, scale, bias)
        return output, *back(gradient)

    rows, vector = (
        jax.ShapeDtypeStruct((4, 512, width), jnp.bfloat16),
        jax.ShapeDtypeStruct((width,), jnp.float32),
    )
    words = jax.ShapeDtypeStruct((2,), jnp.uint32)
    assert (
        compile_for_tpu(topology, step, rows, rows, vector, vector, rows, words).count(
            "tpu_custom_call"
        )
        == 2
    )
