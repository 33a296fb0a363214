import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.model.embeddings import embedding_noise
from bertjax.model.layout import ANYWHERE, PartOfBatch
from tests.factory import SMALL_MODEL, random_batch
from tests.programs import encode, init

NOISY = dataclasses.replace(SMALL_MODEL, embedding_noise=5.0)
GAUSSIAN = dataclasses.replace(NOISY, embedding_noise_kind="gaussian")


@jax.jit
def noise_and_draws(mask, key):
    return embedding_noise(NOISY, mask, key), jax.random.uniform(key, (5, 16, 16)) * 2 - 1


@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(0, 16), min_size=5, max_size=5))
def test_uniform_noise_is_the_formula_of_the_paper_with_the_real_length_of_each_row(seed, lengths):
    mask = (np.arange(16)[None, :] < np.array(lengths)[:, None]).astype(np.int32)
    found, draws = map(np.asarray, noise_and_draws(mask, jax.random.key(seed)))
    for row, length in enumerate(lengths):
        scale = 5 / np.sqrt(max(length, 1) * 16)
        wanted = draws[row] * scale * mask[row][:, None]
        # float32 has 7 digits.
        assert np.allclose(found[row], wanted, rtol=1e-5, atol=1e-7)
        assert not found[row, length:].any()


def test_gaussian_noise_has_the_draws_of_jax_and_its_size():
    key, mask = jax.random.key(3), np.ones((64, 16), np.int32)
    found = np.asarray(embedding_noise(GAUSSIAN, jnp.asarray(mask), key))
    wanted = np.asarray(jax.random.normal(key, (64, 16, 16))) * 5 / 16
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    # Of 16,384 numbers; the deviation of their own deviation is 0.6 %.
    assert found.std() == pytest.approx(5 / 16, rel=0.03)


def test_a_part_of_a_batch_has_the_noise_of_its_rows_in_the_whole():
    mask, key = np.ones((5, 16), np.int32), jax.random.key(1)
    whole, _ = noise_and_draws(mask, key)
    part = PartOfBatch(ANYWHERE, jnp.int32(1), 2, 2)
    found = embedding_noise(NOISY, jnp.asarray(mask[:2]), key, part)
    assert np.allclose(found, np.asarray(whole)[[1, 3]], rtol=1e-5, atol=1e-7)


def test_noise_is_there_with_a_key_alone_and_follows_the_key():
    config = GAUSSIAN
    params = init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(0), 4)

    def hidden(key):
        return encode(config, params, batch, key=key).hidden_BxLxD

    first, again, other = (hidden(jax.random.key(n)) for n in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    # Dropout is 0 in this model: without noise a key changes nothing.
    without = encode(config, params, batch).hidden_BxLxD
    plain = encode(SMALL_MODEL, params, batch, key=jax.random.key(0)).hidden_BxLxD
    assert np.allclose(without, plain, atol=1e-6)
    assert not np.allclose(without, first, atol=1e-3)


def test_noise_below_0_is_refused():
    with pytest.raises(UserError, match=r"model.embedding_noise: found -1.0, expected 0 or more"):
        dataclasses.replace(SMALL_MODEL, embedding_noise=-1.0)
