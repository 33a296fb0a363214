"""What is computed again of a layer's attention is what the layer computes by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model import attention_inside, functional
from bertjax.model.layers import Norm
from tests.factory import SMALL_MODEL
from tests.families.tiny import tiny

PACKS = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
BATCH = {
    "input_ids": np.random.default_rng(0).integers(5, 64, (2, 8)).astype(np.int32),
    "input_mask": (PACKS > 0).astype(np.int32),
    "pack_ids": PACKS,
}


def small(name, **changes):
    return dataclasses.replace(tiny(name), **changes)


MODELS = {
    "plain": SMALL_MODEL,
    "rotary, windows, no first norm": small("modernbert"),
    "rotary, shared keys": small("eurobert"),
    "disentangled": small("deberta-v2"),
    "shared layers": dataclasses.replace(SMALL_MODEL, share_layers=True),
}


def without_feed_forward(params):
    """The parameters, random, with layers whose second sublayer adds 0."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        names = [key.key for key in path]
        if "down" in names:
            return np.zeros(leaf.shape, np.float32)
        return (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


QUICK = ("plain", "rotary, windows, no first norm")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS],
)
def test_scores_and_values_give_the_output_of_each_layer(name, largest):
    config = MODELS[name]
    params = without_feed_forward(functional.shapes(config))
    encoded = functional.encode(config, params, BATCH, keep_layers=True)
    inputs = [encoded.embedded_BxLxD, *encoded.layers_NxBxLxD]
    seen = (PACKS[:, :, None] == PACKS[:, None, :]) & (PACKS > 0)[:, None, :]
    real = (PACKS > 0)[:, :, None]
    last = config.num_hidden_layers - config.final_norm
    for number in range(1, last + 1):
        scores = attention_inside.scores(config, params, BATCH, encoded, number)
        values = attention_inside.projections(config, params, encoded, number).values_BxLxM
        shared = values.reshape(2, 8, -1, config.head_width)
        shared = jnp.repeat(shared, config.num_attention_heads // shared.shape[2], axis=2)
        near = np.abs(np.arange(8)[:, None] - np.arange(8)[None, :]) <= config.local_attention // 2
        near = near | config.is_global(number - 1)
        scores = jnp.where((seen & near[None])[:, None], scores, -1e30)
        mixed = jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(scores), shared)
        index = 0 if config.share_layers else number - 1
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], params["encoder"]["layers"])
        output = layer["attention"]["output"]
        added = jnp.einsum("blhk,hkd->bld", mixed, output["kernel"])
        if "bias" in output:
            added = added + output["bias"][None, None, :]
        expected = inputs[number - 1] + added
        if config.norm_place == "after":
            for norm in ("attention_layer_norm", "mlp_layer_norm"):
                expected = Norm(config).apply({"params": layer[norm]}, expected)
        difference = jnp.abs(jnp.where(real, expected - inputs[number], 0)).max()
        largest(f"inside the attention: {name}", difference, 1e-5)
