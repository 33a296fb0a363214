"""Small models of every kind that exports take, and what they compute here."""

import dataclasses
import functools

import jax
import numpy as np

from bertjax.model import functional
from tests.factory import SMALL_MODEL

OUTPUTS = {"hidden": None, "pooled": "pooler", "mlm_logits": "mlm", "nsp_logits": "nsp"}
MODELS = {
    "bert": SMALL_MODEL,
    "gelu_tanh": dataclasses.replace(
        SMALL_MODEL, hidden_act="gelu_tanh", heads=("pooler",), num_attention_heads=4
    ),
    "albert": dataclasses.replace(
        SMALL_MODEL,
        hidden_act="relu",
        embedding_size=8,
        share_layers=True,
        num_hidden_layers=3,
        layer_norm_eps=1e-6,
    ),
    "roberta": dataclasses.replace(
        SMALL_MODEL, position_offset=2, type_vocab_size=1, heads=("mlm",), scan_unroll=2
    ),
    "headless": dataclasses.replace(
        SMALL_MODEL, heads=(), embedding_size=24, num_hidden_layers=1, remat="full"
    ),
}
SHAPES = [(1, 1), (2, 9), (5, 14)]


def random_params(config, seed=0):
    """Parameters of which none is zero or one, biases and layer norms neither."""
    rng = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.float32(
            (path[-1].key == "scale") + 0.2 * rng.standard_normal(leaf.shape)
        ),
        functional.shapes(config),
    )


def random_inputs(config, rows, length, seed=0):
    """Rows padded by uneven amounts, one of padding alone, of every segment."""
    rng = np.random.default_rng(seed)
    real = rng.integers(0, length + 1, (rows, 1))
    real[0] = length
    shape = (rows, length)
    return {
        "input_ids": rng.integers(0, config.vocab_size, shape).astype(np.int32),
        "input_mask": (np.arange(length)[None, :] < real).astype(np.int32),
        "segment_ids": rng.integers(0, config.type_vocab_size, shape).astype(np.int32),
    }


def all_outputs(config):
    return tuple(name for name, head in OUTPUTS.items() if head is None or head in config.heads)


def expected(config, params, inputs):
    """Every output that the model has."""
    return {
        name: np.asarray(value, np.float32)
        for name, value in _outputs(config, params, inputs).items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _outputs(config, params, inputs):
    hidden = functional.encode(config, params, inputs).hidden_BxLxD
    found = {"hidden": hidden}
    if "pooler" in config.heads:
        found["pooled"] = functional.pool(config, params, hidden)
    if "mlm" in config.heads:
        found["mlm_logits"] = functional.mlm_logits(config, params, hidden)
    if "nsp" in config.heads:
        found["nsp_logits"] = functional.nsp_logits(config, params, found["pooled"])
    return found


def assert_same(found, wanted, atol=1e-5):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert np.asarray(found[name]).dtype == np.float32, name
        np.testing.assert_allclose(np.asarray(found[name]), value, rtol=0, atol=atol, err_msg=name)
