"""The attention kernel, interpreted and compiled for TPU, against plain XLA."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertjax.model.attention.attention import Segments, fused
from bertjax.model.kernels.tpu_attention import fits
from bertjax.model.layout import ANYWHERE
from tests.attention_kernels import differences, drawn, model, output_and_gradients
from tests.tpu import compile_for_tpu

OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


@settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 5), length=st.sampled_from([128, 256]),
    heads_and_width=st.sampled_from([(2, 64), (1, 128), (4, 32), (4, 64)]), rate=st.sampled_from([0.0, 0.1, 0.5]),
)  # fmt: skip
def test_agrees_with_plain_attention_and_its_gradients(
    largest, seed, batch, length, heads_and_width, rate
):
    arrays, segments = drawn(seed, batch, length, *heads_and_width)
    difference = differences("tpu", model(rate), arrays, segments, jax.random.key(seed))
    largest("TPU attention kernel, output and gradients", difference, 1e-5)


def test_rows_and_heads_that_it_has_no_room_for_are_known():
    assert fits(128, 12, 64)
    assert fits(512, 16, 64)
    assert not fits(8, 12, 64)
    assert not fits(1024, 12, 64)
    assert not fits(128, 3, 64)
    assert not fits(128, 4, 48)


@pytest.mark.parametrize("length", [128, 512])
@pytest.mark.parametrize("rate", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
@pytest.mark.parametrize(
    "topology", ["v5e:2x2", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHERS)]
)
def test_compiles_for_tpu(topology, rate, length):
    config = model(rate)

    def step(q, k, v, gradient, queries, keys, words):
        def fast(q, k, v):
            key = jax.random.wrap_key_data(words)
            return fused(
                config, q, k, v, Segments(queries, keys), key=key, layout=ANYWHERE, platform="tpu"
            )

        return output_and_gradients(fast, (q, k, v, gradient))

    heads = jax.ShapeDtypeStruct((4, length, 4, 64), jnp.bfloat16)
    segment = jax.ShapeDtypeStruct((4, length), jnp.int32)
    text = compile_for_tpu(
        topology, step, *[heads] * 4, segment, segment, jax.ShapeDtypeStruct((2,), jnp.uint32)
    )
    assert text.count("tpu_custom_call") == 2
