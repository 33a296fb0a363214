"""The attention kernel for long rows, interpreted and compiled for TPU, against plain XLA."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertjax.config import MeshConfig, ModelConfig
from bertjax.model.attention.attention import scored
from bertjax.model.attention.fused_long import fused_long
from bertjax.model.attention.rotary import rotate, rotation
from bertjax.model.kernels.tpu_long_attention import (
    fits,
    grouped,
    memory_bytes,
    packed_rotation,
)
from bertjax.model.kernels.tpu_long_rows import tiling
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.attention_kernels import drawn, output_and_gradients
from tests.tpu import compile_for_tpu

V5E = 128 << 20
OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


def model(heads, width, pairs="half"):
    return ModelConfig(
        hidden_size=heads * width,
        num_attention_heads=heads,
        positions="rotary",
        rotary_pairs=pairs,
        max_position_embeddings=8192,
        attention_probs_dropout_prob=0.0,
    )


def largest_difference(config, arrays, segments, turn, window, layout=ANYWHERE):
    """The largest difference of output and gradients, relative to the largest entry of each.

    Queries that see no key are left out: their output is 0 here, and a mean in plain attention.
    """
    length = arrays[0].shape[1]
    distances = jnp.abs(jnp.arange(length)[:, None] - jnp.arange(length)[None, :])
    seen = segments.queries_BxL[:, :, None] == segments.keys_BxL[:, None, :]
    seen &= (distances <= (window // 2 if window else length))[None]
    sees = jnp.any(seen, axis=2)[:, :, None, None]
    arrays = [*arrays[:3], jnp.where(sees, arrays[3], 0)]

    def fast(q, k, v):
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        mixed, kept = fused_long(
            config,
            grouped(*flat),
            segments,
            window=window,
            angles=turn and packed_rotation(turn.cosines, turn.sines, config.rotary_pairs),
            layout=layout,
            interpret=True,
        )
        # Half of the gradient comes by each of the two results.
        mixed = (mixed + kept) / 2
        return jnp.where(sees, mixed.reshape(q.shape), 0)

    def plain(q, k, v):
        if turn is not None:
            q, k = rotate(config, q, turn), rotate(config, k, turn)
        return jnp.where(sees, scored(config, q, k, v, segments, window=window), 0)

    actual = jax.jit(lambda arrays: output_and_gradients(fast, arrays))(arrays)
    expected = output_and_gradients(plain, arrays)
    relative = []
    for a, b in zip(actual, expected, strict=True):
        relative.append(float(jnp.abs(a - b).max() / jnp.abs(b).max()))
    return max(relative)


def turned(config, kind, batch, length, seed):
    """No rotation, one for all rows, or one for each row, as in packed rows."""
    if kind == "none":
        return None
    positions = jnp.arange(length)[None, :]
    if kind == "packed":
        positions = jax.random.randint(jax.random.key(seed), (batch, length), 0, 8192)
    return rotation(config, positions, 10_000.0)


@settings(
    max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all
@given(
    seed=st.integers(0, 2**31), length=st.sampled_from([128, 256]),
    heads_and_width=st.sampled_from([(2, 64), (1, 128), (4, 32), (4, 64)]),
    window=st.sampled_from([0, 64, 100, 128, 256]), kind=st.sampled_from(["none", "shared", "packed"]),
    pairs=st.sampled_from(["half", "interleaved"]),
)  # fmt: skip
def test_agrees_with_plain_attention_and_its_gradients(
    largest, seed, length, heads_and_width, window, kind, pairs
):
    config = model(*heads_and_width, pairs)
    # Two rows that see keys, and the last one, which sees none.
    arrays, segments = drawn(seed, 3, length, *heads_and_width)
    turn = turned(config, kind, 3, length, seed)
    difference = largest_difference(config, arrays, segments, turn, window)
    largest("TPU kernel for long rows, output and gradients", difference, 1e-5)


@pytest.mark.parametrize("kind", ["shared", pytest.param("packed", marks=pytest.mark.slow)])
def test_devices_that_share_rows_and_heads_compute_the_same(kind):
    layout = MeshLayout(make_mesh(MeshConfig(data=2, tensor=2), jax.devices()[:4]))
    config = model(4, 64)
    arrays, segments = drawn(3, 2, 128, 4, 64)
    turn = turned(config, kind, 2, 128, 3)
    assert largest_difference(config, arrays, segments, turn, 64, layout) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 128, 640, 1600])
@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_agrees_in_rows_of_several_blocks_and_tiles(window, pairs):
    config = model(2, 64, pairs)
    assert tiling(2048, window).block < 2048
    arrays, segments = drawn(7, 2, 2048, 2, 64)
    turn = turned(config, "packed", 2, 2048, 7)
    assert largest_difference(config, arrays, segments, turn, window) < 1e-5


def test_tiles_cover_the_window_and_divide_the_row():
    for length in range(128, 8193, 128):
        for window in (0, 2, 126, 128, 130, 510, 4096):
            cut = tiling(length, window)
            assert length % cut.block == cut.block % cut.queries == 0
            met = cut.keys * cut.key_tiles
            if window:
                assert 2 * cut.padding >= window
                assert met == cut.queries + 2 * cut.padding
            else:
                assert met == length
            assert cut.keys % 128 == 0


def test_rows_and_heads_that_it_has_no_room_for_are_known():
    assert fits(8192, 0, 12, 64, 2, V5E)
    assert fits(1024, 0, 6, 128, 4, V5E)
    assert not fits(1000, 0, 12, 64, 2, V5E)
    assert not fits(1024, 0, 3, 64, 2, V5E)
    assert not fits(1024, 0, 4, 48, 2, V5E)
    assert not fits(32_768, 0, 12, 64, 2, V5E)
    # A v4's core has 16 MiB; without a TPU nothing is known.
    assert fits(1024, 0, 12, 64, 2, 16 << 20)
    assert not fits(8192, 0, 12, 64, 2, 16 << 20)
    assert not fits(1024, 4096, 12, 64, 2, 16 << 20)
    assert not fits(128, 0, 12, 64, 2, 0)


@pytest.mark.parametrize(
    ("length", "window", "pairs"),
    [
        (1024, 128, "half"),
        pytest.param(1024, 0, "interleaved", marks=pytest.mark.slow),
        pytest.param(8192, 0, "half", marks=pytest.mark.slow),
        pytest.param(8192, 128, "half", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "topology", ["v5e:2x2", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHERS)]
)
def test_compiles_for_tpu(topology, length, window, pairs):
    if topology.startswith("v4") and memory_bytes(length, window, 2) > 16 << 20:
        length = 1024
    config = model(4, 64, pairs)

    def step(q, k, v, gradient, queries, keys, cosines, sines):
        def fast(q, k, v):
            return fused_long(
                config,
                grouped(q, k, v),
                (queries, keys),
                window=window,
                angles=packed_rotation(cosines, sines, config.rotary_pairs),
                layout=ANYWHERE,
            )[0]

        return output_and_gradients(fast, (q, k, v, gradient))

    heads = jax.ShapeDtypeStruct((2, length, 256), jnp.bfloat16)
    segment = jax.ShapeDtypeStruct((2, length), jnp.int32)
    angles = jax.ShapeDtypeStruct((2, length, 32), jnp.float32)
    text = compile_for_tpu(topology, step, *[heads] * 4, segment, segment, angles, angles)
    assert text.count("tpu_custom_call") == 2
