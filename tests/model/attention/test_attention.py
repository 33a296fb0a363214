import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.model.attention.attention import Segments, attention
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.attention_kernels import differences, drawn, model
from tests.factory import SMALL_MODEL


def seen_by_all(seen_BxL):
    """Every query sees the keys that are True."""
    keys = np.where(seen_BxL, 1, -1).astype(np.int32)
    return Segments(jnp.asarray(np.ones_like(keys)), jnp.asarray(keys))


def by_hand(q, k, v, mask):
    """Attention one query at a time, in float64."""
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(q.shape[:3]):
        scores = k[b, :, h].astype(np.float64) @ q[b, i, h] / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max()) * mask[b]
        out[b, i, h] = (weights / weights.sum()) @ v[b, :, h]
    return out


@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 3), length=st.integers(1, 9), heads=st.integers(1, 3),
    width=st.integers(1, 8),
)  # fmt: skip
def test_agrees_with_attention_worked_by_hand(seed, batch, length, heads, width):
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(3, batch, length, heads, width)).astype(np.float32)
    mask = rng.random((batch, length)) < 0.7
    mask[:, 0] = True
    actual = jax.jit(attention, static_argnums=0)(SMALL_MODEL, q, k, v, seen_by_all(mask))
    assert np.allclose(actual, by_hand(q, k, v, mask), atol=1e-5)


def test_a_hidden_key_has_no_influence():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 1, 4, 2, 8)).astype(np.float32)
    segments = seen_by_all(np.array([[True, True, False, True]]))
    before = attention(SMALL_MODEL, q, k, v, segments)
    k[:, 2], v[:, 2] = 1e6, -1e6
    assert np.array_equal(before, attention(SMALL_MODEL, q, k, v, segments))


def test_a_query_that_may_look_nowhere_stays_finite_with_its_gradient():
    q, k, v = jnp.ones((3, 1, 4, 1, 8))
    nowhere = seen_by_all(np.zeros((1, 4), bool))

    def loss(q):
        return attention(SMALL_MODEL, q, k, v, nowhere).sum()

    assert np.isfinite(loss(q))
    assert np.isfinite(jax.grad(loss)(q)).all()


def test_bfloat16_differs_by_its_rounding_only():
    rng = np.random.default_rng(0)
    q, k, v = jnp.asarray(rng.normal(size=(3, 2, 16, 2, 8)), jnp.float32)
    segments = seen_by_all(np.ones((2, 16), bool))
    low = attention(SMALL_MODEL, *(x.astype(jnp.bfloat16) for x in (q, k, v)), segments)
    assert low.dtype == jnp.bfloat16
    assert np.abs(low.astype(jnp.float32) - attention(SMALL_MODEL, q, k, v, segments)).max() < 0.05


def test_dropout_falls_on_the_probabilities():
    q = k = jnp.zeros((1, 64, 1, 8))
    v = jnp.ones((1, 64, 1, 8))
    config = dataclasses.replace(SMALL_MODEL, attention_probs_dropout_prob=0.5)
    out = attention(config, q, k, v, seen_by_all(np.ones((1, 64), bool)), key=jax.random.key(0))
    # Each query sees 64 equal probabilities; dropping half of them and doubling the rest
    # spreads its sum around 1 by sqrt(1/64).
    assert abs(float(out.mean()) - 1) < 0.05
    assert 0.08 < float(out[0, :, 0, 0].std()) < 0.18


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_kernels_in_bfloat16_differ_by_their_rounding_only(platform, largest):
    arrays, segments = drawn(0, 2, 128, 2, 64, jnp.bfloat16)
    difference = differences(platform, model(0.1), arrays, segments, jax.random.key(0))
    largest(f"{platform.upper()} attention kernels, bfloat16", difference, 2e-2)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 4, "tensor": 2},
        pytest.param({"replica": 2, "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_kernels_drop_the_same_probabilities_on_any_mesh(sizes, platform):
    arrays, segments = drawn(1, 8, 128, 4, 64)
    layout = MeshLayout(make_mesh(MeshConfig(**sizes)))
    assert differences(platform, model(0.1), arrays, segments, jax.random.key(1), layout) < 1e-5
