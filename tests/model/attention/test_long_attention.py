"""Long rows cost less, and mean the same."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.model import functional
from bertjax.model.attention import attention, long_attention
from bertjax.model.attention.attention import Segments, scored
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.factory import SMALL_MODEL
from tests.programs import encode, init
from tests.xla import WITH_FUSION_EMITTERS

LONGER = dataclasses.replace(SMALL_MODEL, max_position_embeddings=64)


def windowed(width, every=0, **changes):
    return dataclasses.replace(
        LONGER, local_attention=width, global_attn_every_n_layers=every, **changes
    )


def drawn(seed, batch, length, heads=2, width=4):
    """Queries, keys and values, and segments with some keys hidden."""
    rng = np.random.default_rng(seed)
    q, k, v = jnp.asarray(rng.normal(size=(3, batch, length, heads, width)), jnp.float32)
    packs = np.cumsum(rng.random((batch, length)) < 0.1, axis=1).astype(np.int32)
    return (
        q,
        k,
        v,
        Segments(
            jnp.asarray(packs), jnp.asarray(np.where(rng.random(packs.shape) < 0.2, -1, packs))
        ),
    )


def sees_something(segments, window):
    """[B, L, 1, 1]: a query without a key gets a mean, of what is another matter."""
    near = (
        np.abs(np.subtract.outer(np.arange(len(segments[0][0])), np.arange(len(segments[0][0]))))
        <= window // 2
    )
    alike = np.asarray(segments[0])[:, :, None] == np.asarray(segments[1])[:, None, :]
    return (alike & near).any(-1)[:, :, None, None]


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 2),
    length=st.sampled_from([1, 2, 9, 24, 31]),
    reach=st.sampled_from([1, 3, 8, 40]),
)
def test_blocks_of_a_window_agree_with_a_whole_matrix_of_scores_with_their_gradients(
    seed, batch, length, reach
):
    q, k, v, segments = drawn(seed, batch, length)
    config, counted = windowed(2 * reach), sees_something(segments, 2 * reach)

    def value(attend, q, k, v):
        mixed = attend(q, k, v) * counted
        return (
            mixed * jnp.cos(jnp.arange(mixed.size, dtype=jnp.float32).reshape(mixed.shape))
        ).sum(), mixed

    def blocks(q, k, v):
        return long_attention.local_attention(config, q, k, v, *segments, key=None, layout=ANYWHERE)

    def matrix(q, k, v):
        return scored(config, q, k, v, segments, window=2 * reach)

    actual, expected = (
        jax.jit(jax.value_and_grad(partial(value, attend), (0, 1, 2), has_aux=True))(q, k, v)
        for attend in (blocks, matrix)
    )
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.allclose(mine, theirs, atol=2e-5)


@pytest.mark.parametrize("length", [40, 41, 64])
def test_some_queries_at_a_time_agree_with_all_at_once_with_their_gradients(length, monkeypatch):
    q, k, v, segments = drawn(0, 2, length)

    def loss(q, k, v):
        return jnp.square(attention.attention(LONGER, q, k, v, segments)).sum()

    whole = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)
    monkeypatch.setattr(long_attention, "CHUNKED_FROM", 32)
    monkeypatch.setattr(long_attention, "CHUNK", 10)
    assert "while" in jax.jit(loss).lower(q, k, v).as_text()
    parts = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)
    for mine, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert np.allclose(mine, theirs, atol=1e-5)


def reached(config, length):
    """The places whose hidden state changes when the first id does."""
    params = init(config, jax.random.key(0))
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (1, length))
    other = ids.copy()
    other[0, 0] = 1 + other[0, 0] % (config.vocab_size - 1)
    one, two = (
        np.asarray(encode(config, params, {"input_ids": i}).hidden_BxLxD) for i in (ids, other)
    )
    return np.flatnonzero((one != two).any(-1)[0])


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("every", "farthest"), [(0, 2 * 3), (2, 31), (1, 31)])
def test_an_id_is_seen_as_far_as_the_layers_windows_reach_or_everywhere_by_a_global_layer(
    every, farthest, shared
):
    sizes = {
        "num_hidden_layers": 2,
        "share_layers": shared,
        "embedding_size": 8 * shared,
        "heads": (),
    }
    changed = reached(windowed(6, every, **sizes), 32)
    assert changed.max() == farthest


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("unroll", [1, 3])
def test_layers_that_alternate_agree_with_whole_matrices_of_scores(remat, unroll, monkeypatch):
    config = windowed(6, 3, num_hidden_layers=4, remat=remat, scan_unroll=unroll, heads=())
    params = functional.init(config, jax.random.key(1))
    batch = {"input_ids": np.random.default_rng(0).integers(1, config.vocab_size, (2, 32))}

    def loss(params):
        return jnp.square(functional.encode(config, params, batch).hidden_BxLxD[:, 5:7]).sum()

    # As users have them: without these emitters gradients that are 0 by rights are further from it.
    compiled = partial(jax.jit, compiler_options=WITH_FUSION_EMITTERS)
    actual = compiled(jax.value_and_grad(loss))(params)

    def whole(*arguments, last, **options):
        return scored(*arguments, window=6, last_BxL=last, **options)

    monkeypatch.setattr(attention, "_local_attention", whole)
    expected = compiled(jax.value_and_grad(loss))(params)
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_devices_that_share_a_row_agree_with_one():
    config = windowed(6, 2, num_hidden_layers=2, heads=())
    params = init(config, jax.random.key(1))
    batch = {"input_ids": np.random.default_rng(0).integers(1, config.vocab_size, (2, 48))}
    layout = MeshLayout(make_mesh(MeshConfig(data=2, tensor=2, sequence=2)))
    one, eight = (
        encode(config, params, batch, layout=way).hidden_BxLxD for way in (ANYWHERE, layout)
    )
    assert np.allclose(one, eight, atol=1e-5)


@pytest.mark.parametrize("bits", ["threefry", "hash", "rbg"])
def test_dropout_falls_on_as_many_probabilities_as_it_says(bits):
    config = windowed(8, attention_probs_dropout_prob=0.25, dropout_bits=bits)
    ones = jnp.ones((4, 64, 2, 4), jnp.float32)
    segments = Segments(jnp.ones((4, 64), jnp.int32), jnp.ones((4, 64), jnp.int32))
    mixed = attention.attention(
        config, ones, ones, ones, segments, key=jax.random.key(3), is_global=False
    )
    kept = np.asarray(mixed) * 0.75  # of up to nine equal probabilities
    assert abs(kept.mean() - 0.75) < 0.02
    assert np.allclose(kept[:, 4:60] * 9, np.round(kept[:, 4:60] * 9), atol=1e-4)


def test_memory_grows_with_the_length_and_not_with_its_square():
    def peak(length, **changes):
        config = windowed(
            64, 0, heads=(), num_hidden_layers=2, max_position_embeddings=8192, **changes
        )
        params = functional.shapes(config)
        ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def loss(params, ids):
            return functional.encode(config, params, {"input_ids": ids}).hidden_BxLxD.sum()

        return (
            jax.jit(jax.grad(loss))
            .lower(params, ids)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    assert peak(8192) < 5 * peak(2048)
    assert peak(8192) < 8192**2 * 4  # one head's scores


def causal_by_hand(q, k, v, segments, is_causal, window):
    """Attention with a mask, one query at a time, in float64; a query without a key is left 0."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    of_queries, of_keys = map(np.asarray, segments)
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(q.shape[:3]):
        indices = np.arange(q.shape[1])
        seen = of_keys[b] == of_queries[b, i]
        if is_causal[b]:
            seen &= indices <= i
        if window:
            seen &= np.abs(indices - i) <= window // 2
        if seen.any():
            scores = k[b, seen, h] @ q[b, i, h] / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[b, i, h] = weights / weights.sum() @ v[b, seen, h]
    return out


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("form", ["whole", "parts"])
@given(seed=st.integers(0, 2**31))
def test_a_causal_row_sees_its_input_up_to_each_query_and_others_all_of_it(window, form, seed):
    """All forms without a kernel: the matrix of scores, chunks of queries, blocks of a window."""
    q, k, v, segments = drawn(seed, 3, 24)
    is_causal = np.random.default_rng(seed).random(3) < 0.5
    last = jnp.where(jnp.asarray(is_causal)[:, None], jnp.arange(24)[None, :], 23)
    found = _causal(form, window)(q, k, v, segments, last)
    wanted = causal_by_hand(q, k, v, segments, is_causal, window)
    has_key = (wanted != 0).any(-1, keepdims=True)
    assert np.allclose(np.where(has_key, found, 0), wanted, atol=1e-5)


@cache
def _causal(form, window):
    config = windowed(window) if window else LONGER
    if form == "whole":
        attend = partial(scored, config, window=window)
    elif window:
        attend = partial(attention.attention, config, is_global=False)
    else:
        attend = _in_chunks

    def run(q, k, v, segments, last):
        return attend(q, k, v, segments, last_BxL=last)

    return jax.jit(run)


def _in_chunks(q, k, v, segments, last_BxL):
    def chunk(q, queries, last, key):
        seen = Segments(queries, segments.keys_BxL)
        return scored(LONGER, q, k, v, seen, last_BxL=last)

    with pytest.MonkeyPatch.context() as patch:
        # Five chunks or so of this row, in the program that is traced here.
        patch.setattr(long_attention, "CHUNK", 5)
        return long_attention.chunked_attention(chunk, q, segments.queries_BxL, last_BxL, None)
