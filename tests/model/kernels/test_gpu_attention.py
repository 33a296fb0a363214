"""Attention kernels for GPU, interpreted and lowered for CUDA, against matrices of scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from bertjax.model.attention.attention import Segments, attention
from bertjax.model.kernels.gpu_attention import fits
from bertjax.model.layout import Anywhere
from tests.attention_kernels import differences, drawn, model, output_and_gradients

# JAX 0.12 asks which GPU it is, to lower a kernel for it.
H100 = AbstractMesh(
    (), (), abstract_device=AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
)


class Gpu(Anywhere):
    """The layout of one GPU."""

    platform = "gpu"


@settings(
    max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 3), length=st.sampled_from([64, 128, 192]),
    heads=st.integers(1, 3), width=st.sampled_from([16, 64, 128]), rate=st.sampled_from([0.0, 0.1, 0.5]),
)  # fmt: skip
def test_agrees_with_plain_attention_and_its_gradients(
    largest, seed, batch, length, heads, width, rate
):
    arrays, segments = drawn(seed, batch, length, heads, width)
    difference = differences("gpu", model(rate), arrays, segments, jax.random.key(seed))
    largest("GPU attention kernels, output and gradients", difference, 1e-5)


@pytest.mark.parametrize(
    "window", [2, 130, *(pytest.param(n, marks=pytest.mark.slow) for n in (64, 1000))]
)
def test_of_a_window_it_agrees_with_plain_attention(largest, window):
    arrays, _ = drawn(window, 2, 320, 2, 16)
    packs = jnp.asarray(np.sort(np.random.default_rng(window).integers(0, 3, (2, 320))), jnp.int32)
    difference = differences(
        "gpu", model(0.1), arrays, Segments(packs, packs), jax.random.key(0), window=window
    )
    largest("GPU attention kernels, of a window", difference, 1e-5)


def test_rows_and_heads_that_they_have_no_room_for_are_known():
    assert fits(64, 64)
    assert fits(8192, 16)
    assert not fits(96, 64)
    assert not fits(128, 48)
    assert not fits(128, 256)


@pytest.mark.parametrize(
    ("length", "is_global"), [(128, True), (512, True), (8192, True), (8192, False)]
)
def test_on_a_gpu_attention_is_three_kernels_and_no_matrix_of_scores(length, is_global):
    config = dataclasses.replace(model(0.1), local_attention=128)
    heads = jax.ShapeDtypeStruct((2, length, 3, 64), jnp.bfloat16)
    segment = jax.ShapeDtypeStruct((2, length), jnp.int32)

    def step(layout, q, k, v, gradient, queries, keys):
        def mixed(q, k, v):
            key = jax.random.key(0)
            return attention(
                config,
                q,
                k,
                v,
                Segments(queries, keys),
                key=key,
                is_global=is_global,
                layout=layout,
            )

        return output_and_gradients(mixed, (q, k, v, gradient))

    def lowered(layout):
        with use_abstract_mesh(H100):
            traced = jax.jit(step, static_argnums=0).trace(layout, *[heads] * 4, segment, segment)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    assert lowered(Gpu()).count("xla.gpu.triton") == 3
    assert f"x{length}x{length}x" not in lowered(Gpu())
    assert "triton" not in lowered(Anywhere())
