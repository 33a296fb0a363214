"""The norm before a sublayer as a kernel, interpreted and compiled for TPU, against plain XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertjax.config import MeshConfig, ModelConfig
from bertjax.model.layers import normalized
from bertjax.model.layout import ANYWHERE
from bertjax.model.residual_norm import pre_norm
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.tpu import compile_for_tpu

OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


def model(width, norm_type, dtype="float32"):
    biases = ("norm",) if norm_type == "layer_norm" else ()
    return ModelConfig(
        hidden_size=width, num_attention_heads=1, norm_place="before", norm_type=norm_type,
        biases=biases, dtype=dtype,
    )  # fmt: skip


def drawn(seed, batch, length, width, dtype=jnp.float32):
    """x, scale, bias, and the gradients of both results."""
    rng = np.random.default_rng(seed)
    x, past, gradient = (
        jnp.asarray(a, dtype) for a in rng.normal(rng.normal(), 1, (3, batch, length, width))
    )
    scale, bias = (jnp.asarray(a, jnp.float32) for a in rng.normal(0, 1, (2, width)))
    return (x, scale, bias), (past, gradient)


def compare(config, inputs, gradients, layout=ANYWHERE):
    """Return the largest difference from the plain norm, of both results and the gradients."""

    def fast(x, scale, bias):
        return pre_norm(config, layout, x, scale, bias, interpret=True)

    def plain(x, scale, bias):
        return x, normalized(config, x.astype(jnp.float32), scale, bias)

    def run(function):
        outputs, back = jax.vjp(function, *inputs)
        return *outputs, *back(gradients)

    pairs = zip(jax.jit(lambda: run(fast))(), jax.jit(lambda: run(plain))(), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


@settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 5), length=st.sampled_from([128, 256, 640]),
    width=st.sampled_from([128, 384]), norm_type=st.sampled_from(["layer_norm", "rms_norm"]),
)  # fmt: skip
def test_agrees_with_the_plain_norm_and_its_gradients(
    largest, seed, batch, length, width, norm_type
):
    inputs, gradients = drawn(seed, batch, length, width)
    difference = compare(model(width, norm_type), inputs, gradients)
    largest("TPU kernel of the norm before a sublayer", difference, 1e-5)


def test_bfloat16_differs_by_its_rounding_only(largest):
    inputs, gradients = drawn(0, 3, 128, 128, jnp.bfloat16)
    difference = compare(model(128, "layer_norm", "bfloat16"), inputs, gradients)
    largest("TPU kernel of the norm before a sublayer, bfloat16", difference, 2e-2)


def test_a_norm_without_scale_and_bias_has_neither():
    (x, _scale, _bias), _gradients = drawn(2, 2, 128, 128)
    config = model(128, "rms_norm")
    past, normal = pre_norm(config, ANYWHERE, x, None, None, interpret=True)
    assert (past == x).all()
    assert jnp.abs(normal - normalized(config, x, None, None)).max() < 1e-5


@pytest.mark.parametrize("sizes", [{"data": 4, "sequence": 2}, {"replica": 2, "fsdp": 4}], ids=str)
def test_any_mesh_sums_the_gradients_of_scale_and_bias(sizes):
    inputs, gradients = drawn(1, 8, 256, 128)
    layout = MeshLayout(make_mesh(MeshConfig(**{"data": 1} | sizes)))
    assert compare(model(128, "layer_norm"), inputs, gradients, layout) < 1e-5


@pytest.mark.parametrize("width", [768, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "topology", ["v5e:2x2", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHERS)]
)
def test_compiles_for_tpu(topology, width):
    config = model(width, "layer_norm", "bfloat16")

    def step(x, scale, bias, *gradients):
        outputs, back = jax.vjp(lambda *inputs: pre_norm(config, ANYWHERE, *inputs), x, scale, bias)
        return *outputs, *back(gradients)

    rows, vector = (
        jax.ShapeDtypeStruct((4, 512, width), jnp.bfloat16),
        jax.ShapeDtypeStruct((width,), jnp.float32),
    )
    text = compile_for_tpu(topology, step, rows, vector, vector, rows, rows)
    assert text.count("tpu_custom_call") == 2
