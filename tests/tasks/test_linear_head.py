import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.model.linear_head import init_linear
from bertjax.tasks import linear_head as heads
from tests.factory import SMALL_MODEL, random_batch

INPUTS = ("input_ids", "input_mask", "segment_ids")


def test_dropout_is_off_without_a_key_and_keeps_the_mean_with_one():
    config = dataclasses.replace(SMALL_MODEL, hidden_dropout_prob=0.25)
    x = jnp.ones((64, 64))
    assert heads.dropped(config, x, None, ANYWHERE) is x
    assert heads.dropped(SMALL_MODEL, x, jax.random.key(0), ANYWHERE) is x
    result = np.asarray(heads.dropped(config, x, jax.random.key(0), ANYWHERE))
    assert np.unique(result).tolist() == pytest.approx([0, 4 / 3])
    assert (result == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert not np.array_equal(result, heads.dropped(config, x, jax.random.key(1), ANYWHERE))


def test_a_sentence_vector_that_is_a_mean_leaves_padding_out():
    config = dataclasses.replace(
        SMALL_MODEL, heads=("pooler",), pooling="mean", pooler="none", initializer_range=0.3
    )
    params = functional.init(config, jax.random.key(0))
    head = init_linear(config, jax.random.key(1), 3)
    batch = {name: random_batch(np.random.default_rng(0), 4)[name] for name in INPUTS}
    hidden = jax.jit(functional.encode, static_argnums=0)(config, params, batch).hidden_BxLxD
    logits = heads.pooled_logits(
        config, params, head, hidden, batch["input_mask"], key=None, layout=ANYWHERE
    )
    for row, length in enumerate(batch["input_mask"].sum(axis=1)):
        expected = np.asarray(hidden)[row, :length].mean(axis=0) @ head["kernel"]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-5)


def test_a_head_on_tokens_reads_what_the_pooler_computes_where_the_model_says_so():
    modern = {"pooler_norm": True, "pooler_act": "gelu", "token_pooler": True}
    config = dataclasses.replace(SMALL_MODEL, heads=("pooler",), initializer_range=0.3, **modern)
    params = functional.init(config, jax.random.key(0))
    head = init_linear(config, jax.random.key(1), 3)
    batch = {name: random_batch(np.random.default_rng(0), 4)[name] for name in INPUTS}

    @jax.jit
    def computed():
        hidden = functional.encode(config, params, batch).hidden_BxLxD
        positions = jnp.broadcast_to(jnp.arange(hidden.shape[1])[None, :], hidden.shape[:2])
        pooled = functional.pool(config, params, hidden, positions)
        logits = heads.token_logits(config, params, head, hidden, key=None, layout=ANYWHERE)
        return hidden, pooled, logits

    hidden, pooled, logits = computed()
    np.testing.assert_allclose(logits, pooled @ head["kernel"], rtol=1e-4, atol=1e-5)
    plain = dataclasses.replace(config, token_pooler=False)
    assert functional.pool_tokens(plain, params, hidden) is hidden
    without = dataclasses.replace(config, heads=())
    with pytest.raises(UserError, match="model.heads: found none, expected pooler"):
        functional.pool_tokens(without, params, hidden)
