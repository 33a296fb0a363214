"""The attention kernel, run by Pallas's interpreter and compiled for TPU, against `attention` in plain XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertjax.config import MeshConfig, ModelConfig
from bertjax.model.attention import Segments, attention, fused
from bertjax.model.fused_attention import fits
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.tpu import compile_for_tpu

OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


def model(rate=0.0):
    return ModelConfig(kernels="pallas", dropout_bits="hash", attention_probs_dropout_prob=rate)


def drawn(seed, batch, length, heads, width, dtype=jnp.float32):
    """q, k, v, the output's gradient; and segments of padded rows, packed rows and a row of padding only."""
    rng = np.random.default_rng(seed)
    arrays = [jnp.asarray(x, dtype) for x in rng.normal(size=(4, batch, length, heads, width))]
    packs = np.sort(rng.integers(0, 4, (batch, length)), axis=1)[:, ::-1]
    queries = np.where(rng.random((batch, 1)) < 0.5, 1, packs)
    keys = np.where(packs > 0, np.where(queries[:, :1] == 1, np.minimum(queries, 1), packs), -1)
    keys[-1] = -1
    return arrays, Segments(jnp.asarray(queries, jnp.int32), jnp.asarray(keys, jnp.int32))


def output_and_gradients(function, arrays):
    *inputs, gradient = arrays
    output, back = jax.vjp(function, *inputs)
    return output, *back(gradient)


def compare(config, arrays, segments, key, layout=ANYWHERE):
    """The largest difference from plain attention, relative to the largest entry, of output and gradients."""

    def fast(q, k, v):
        return fused(config, q, k, v, segments, key=key, layout=layout, interpret=True)

    def plain(q, k, v):
        return attention(dataclasses.replace(config, kernels="xla"), q, k, v, segments, key=key)

    found = jax.jit(lambda arrays: output_and_gradients(fast, arrays))(arrays)
    expected = output_and_gradients(plain, [x.astype(jnp.float32) for x in arrays])
    return max(
        float(jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max()) for a, b in zip(found, expected, strict=True)
    )


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 5), length=st.sampled_from([128, 256]),
    heads_and_width=st.sampled_from([(2, 64), (1, 128), (4, 32), (4, 64)]), rate=st.sampled_from([0.0, 0.1, 0.5]),
)  # fmt: skip
def test_agrees_with_plain_attention_and_its_gradients(largest, seed, batch, length, heads_and_width, rate):
    arrays, segments = drawn(seed, batch, length, *heads_and_width)
    difference = compare(model(rate), arrays, segments, jax.random.key(seed))
    largest("TPU attention kernel, output and gradients", difference, 1e-5)


def test_bfloat16_differs_by_its_rounding_only(largest):
    arrays, segments = drawn(0, 2, 128, 2, 64, jnp.bfloat16)
    largest("TPU attention kernel, bfloat16", compare(model(0.1), arrays, segments, jax.random.key(0)), 2e-2)


@pytest.mark.parametrize("sizes", [{"data": 4, "tensor": 2}, {"replica": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_any_mesh_drops_the_same_probabilities(sizes):
    arrays, segments = drawn(1, 8, 128, 4, 64)
    layout = MeshLayout(make_mesh(MeshConfig(**sizes)))
    assert compare(model(0.1), arrays, segments, jax.random.key(1), layout) < 1e-5


def test_rows_and_heads_that_it_has_no_room_for_are_known():
    assert fits(128, 12, 64)
    assert fits(512, 16, 64)
    assert not fits(8, 12, 64)
    assert not fits(1024, 12, 64)
    assert not fits(128, 3, 64)
    assert not fits(128, 4, 48)


@pytest.mark.parametrize("length", [128, 512])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("topology", ["v5e:2x2", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHERS)])
def test_compiles_for_tpu(topology, rate, length):
    config = model(rate)

    def step(q, k, v, gradient, queries, keys, words):
        def fast(q, k, v):
            key = jax.random.wrap_key_data(words)
            return fused(config, q, k, v, Segments(queries, keys), key=key, layout=ANYWHERE)

        return output_and_gradients(fast, (q, k, v, gradient))

    heads = jax.ShapeDtypeStruct((4, length, 4, 64), jnp.bfloat16)
    segment = jax.ShapeDtypeStruct((4, length), jnp.int32)
    text = compile_for_tpu(topology, step, *[heads] * 4, segment, segment, jax.ShapeDtypeStruct((2,), jnp.uint32))
    assert text.count("tpu_custom_call") == 2
