import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.embeddings import embedding_noise
from tests.factory import SMALL_MODEL, random_batch

NOISY = dataclasses.replace(SMALL_MODEL, embedding_noise=5.0)
GAUSSIAN = dataclasses.replace(NOISY, embedding_noise_kind="gaussian")


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5), size=st.floats(0.1, 20))
def test_uniform_noise_is_the_formula_of_the_paper_with_the_real_length_of_each_row(
    seed, rows, size
):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 17, rows)
    mask = (np.arange(16)[None, :] < lengths[:, None]).astype(np.int32)
    config, key = dataclasses.replace(NOISY, embedding_noise=size), jax.random.key(seed)
    found = np.asarray(embedding_noise(config, jnp.asarray(mask), key))
    draws = np.asarray(jax.random.uniform(key, (rows, 16, 16))) * 2 - 1
    for row, length in enumerate(lengths):
        scale = size / np.sqrt(max(length, 1) * 16)
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


@pytest.mark.parametrize("config", [NOISY, GAUSSIAN], ids=["uniform", "gaussian"])
def test_noise_is_there_with_a_key_alone_and_follows_the_key(config):
    params = functional.init(SMALL_MODEL, jax.random.key(0))
    batch = random_batch(np.random.default_rng(0), 4)

    @jax.jit
    def hidden(key):
        return functional.encode(config, params, batch, key=key).hidden_BxLxD

    first, again, other = (hidden(jax.random.key(n)) for n in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    # Dropout is 0 in this model: without noise a key changes nothing.
    without = functional.encode(config, params, batch).hidden_BxLxD
    plain = functional.encode(SMALL_MODEL, params, batch, key=jax.random.key(0)).hidden_BxLxD
    assert np.allclose(without, plain, atol=1e-6)
    assert not np.allclose(without, first, atol=1e-3)


def test_noise_below_0_is_refused():
    with pytest.raises(UserError, match=r"model.embedding_noise: found -1.0, expected 0 or more"):
        dataclasses.replace(SMALL_MODEL, embedding_noise=-1.0)
