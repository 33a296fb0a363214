import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax
from tests.factory import SMALL_MODEL
from tests.programs import encode, init

ALTERNATING = dataclasses.replace(
    SMALL_MODEL,
    num_hidden_layers=7,
    local_attention=4,
    first_global_layer=1,
    norm_place="before",
    first_norm=False,
    final_norm=True,
    positions="rotary",
    rotary_base_local=100.0,
)
IDS = np.random.default_rng(0).integers(0, 64, (2, 16)).astype(np.int32)


@partial(jax.jit, static_argnums=0)
def with_parameters(config):
    params = bertjax.init(config, jax.random.key(0))
    # Norms and biases are moved off 1 and 0, so that each counts.
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)


def hidden(config, params, **options):
    return encode(config, params, {"input_ids": IDS}, keep_layers=True, **options)


@pytest.mark.parametrize(
    "unroll", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 6, 7))]
)
def test_each_layer_is_that_of_a_model_of_one_kind_of_attention(unroll):
    config = dataclasses.replace(ALTERNATING, scan_unroll=unroll)
    params = with_parameters(config)
    found = hidden(config, params)
    x = found.embedded_BxLxD
    for layer in range(config.num_hidden_layers):
        is_global = layer % 3 == 1
        # A model of this layer alone, whose embeddings give its input.
        alone = dataclasses.replace(
            config,
            num_hidden_layers=1,
            global_attn_every_n_layers=int(is_global),
            first_global_layer=0,
            first_norm=layer > 0,
            final_norm=layer == 6,
        )
        own = {"layers": jax.tree.map(lambda p, n=layer: p[n : n + 1], params["encoder"]["layers"])}
        if layer == 6:
            own["final_norm"] = params["encoder"]["final_norm"]
        x = run_alone(alone, params, own, x)
        np.testing.assert_allclose(found.layers_NxBxLxD[layer], x, atol=2e-5)


def run_alone(config, params, encoder, x):
    # Words whose embeddings are the hidden states: one word for each token.
    table = x.reshape(-1, x.shape[-1])
    config = dataclasses.replace(
        config, vocab_size=len(table), embedding_norm=False, type_vocab_size=0, heads=()
    )
    own = {"encoder": encoder, "embeddings": {"word": {"embedding": table}}}
    ids = np.arange(len(table), dtype=np.int32).reshape(x.shape[:2])
    return encode(config, own, {"input_ids": ids}).hidden_BxLxD


def test_dropout_differs_from_layer_to_layer_and_not_with_the_loop():
    config = dataclasses.replace(ALTERNATING, hidden_dropout_prob=0.3)
    params = with_parameters(config)
    key = jax.random.key(2)
    written_out = dataclasses.replace(config, scan_unroll=7)
    looped = hidden(config, params, key=key).hidden_BxLxD
    np.testing.assert_allclose(looped, hidden(written_out, params, key=key).hidden_BxLxD, atol=1e-5)
    assert not np.allclose(looped, hidden(config, params).hidden_BxLxD)


@pytest.mark.slow
def test_layers_that_mix_start_as_layers_that_do_not():
    config = dataclasses.replace(SMALL_MODEL, num_hidden_layers=3, norm_place="before")
    mixing = dataclasses.replace(config, layer_mix=True)
    params = init(mixing, jax.random.key(0))
    plain = {**params, "encoder": {"layers": params["encoder"]["layers"]}}
    np.testing.assert_allclose(
        hidden(mixing, params).layers_NxBxLxD, hidden(config, plain).layers_NxBxLxD, atol=1e-6
    )


def test_a_mixing_layer_adds_the_outputs_so_far_by_their_weights():
    config = dataclasses.replace(
        SMALL_MODEL, num_hidden_layers=1, norm_place="before", layer_mix=True
    )
    params = init(config, jax.random.key(0))
    # The last output is the mean of the embeddings and both sublayers' outputs.
    thirds = jnp.asarray([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3]], jnp.float32)
    mixed = {**params, "encoder": {**params["encoder"], "mix": thirds}}
    first = {
        **params,
        "encoder": {
            **params["encoder"],
            "mix": jnp.eye(2, 3, k=1).at[1].set(jnp.asarray([0, 1, 0], jnp.float32)),
        },
    }
    outputs = [
        hidden(config, params).embedded_BxLxD,
        hidden(config, first).hidden_BxLxD,
        hidden(config, params).hidden_BxLxD,
    ]
    np.testing.assert_allclose(hidden(config, mixed).hidden_BxLxD, sum(outputs) / 3, atol=1e-6)


def test_shared_layers_alternate_too():
    config = dataclasses.replace(
        SMALL_MODEL, num_hidden_layers=7, local_attention=4, share_layers=True
    )
    params = init(config, jax.random.key(0))
    apart = dataclasses.replace(config, share_layers=False)
    repeated = jax.tree.map(lambda p: jnp.repeat(p, 7, axis=0), params["encoder"])
    np.testing.assert_allclose(
        hidden(config, params).layers_NxBxLxD,
        hidden(apart, {**params, "encoder": repeated}).layers_NxBxLxD,
        atol=1e-6,
    )
