import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression.prune.layers import kept_by_loss, named_layers, spread
from bertjax.config import ModelConfig
from bertjax.errors import UserError
from bertjax.model import functional
from tests.factory import SMALL_MODEL
from tests.interop.exported_programs import random_params

MODEL = ModelConfig()


@pytest.mark.parametrize(
    ("text", "expected"), [("6", 6), ("12", 12), ("0,2, 4", [0, 2, 4]), ("5,", [5])]
)
def test_layers_are_a_number_or_the_layers_themselves(text, expected):
    assert named_layers(text, MODEL) == expected


@pytest.mark.parametrize("text", [
    "0", "13", "-1", "six", "1.5", "0,12", "2,1", "1,1", ",", "99999999999999999999,1", "9" * 6000,
    "0," + "9" * 6000, "٣",
])  # fmt: skip
def test_layers_that_the_model_has_not_are_refused(text):
    with pytest.raises(UserError, match="--layers: found"):
        named_layers(text, MODEL)


def test_of_shared_layers_only_their_number_can_be_said():
    shared = dataclasses.replace(MODEL, share_layers=True)
    assert named_layers("6", shared) == 6
    with pytest.raises(UserError, match="found 0,1, expected a number of layers, because all"):
        named_layers("0,1", shared)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_spread_layers_are_different_ones_from_the_first_on(sizes):
    layers, kept = sizes
    chosen = spread(layers, kept)
    assert chosen[0] == 0
    assert (np.diff(chosen) > 0).all()
    assert chosen[-1] < layers


def test_the_layers_stay_without_which_the_loss_grows_most():
    config = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4)
    params = random_params(config, 0)
    # A layer's own value is its loss: without layer i the sum lacks its value.
    values = np.array([5.0, 1.0, 4.0, 2.0], np.float32)
    bias = np.zeros((4, config.hidden_size), np.float32)
    bias[:, 0] = values
    params["encoder"]["layers"]["mlp_layer_norm"]["bias"] = bias
    asked = []

    def loss(smaller, params, batch):
        asked.append(smaller.num_hidden_layers)
        return -jnp.sum(params["encoder"]["layers"]["mlp_layer_norm"]["bias"][:, 0])

    assert kept_by_loss(config, params, 2, loss, [{}, {}]).tolist() == [0, 2]
    assert set(asked) == {3}
    assert functional.shapes(config)["encoder"]["layers"]["mlp_layer_norm"]["bias"].shape[0] == 4
