"""Ranges of inputs, against those that the model's own hidden states have."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from bertjax.compression.quantize.input_ranges import input_ranges
from bertjax.compression.quantize.stablehlo_form import served_places
from bertjax.interop.programs.serving import served_model
from bertjax.model import functional
from tests.factory import SMALL_MODEL


@pytest.mark.parametrize("share", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_layer_has_the_range_of_all_its_inputs(share):
    config = dataclasses.replace(
        SMALL_MODEL, num_hidden_layers=3, share_layers=share, heads=("mlm",)
    )
    params = jax.jit(lambda: functional.init(config, jax.random.key(0)))()
    rng = np.random.default_rng(0)
    encode = jax.jit(partial(functional.encode, config, keep_layers=True))
    rows, least, largest = [], np.full(3, np.inf), np.full(3, -np.inf)
    for length in (9, 9):
        ids = rng.integers(0, config.vocab_size, (4, length)).astype(np.int32)
        batch = {
            "input_ids": ids,
            "input_mask": np.ones_like(ids),
            "segment_ids": np.zeros_like(ids),
        }
        rows.append(batch)
        encoded = encode(params, batch)
        inputs = [encoded.embedded_BxLxD, *encoded.layers_NxBxLxD[:-1]]
        least = np.minimum(least, [x.min() for x in inputs])
        largest = np.maximum(largest, [x.max() for x in inputs])
    model = served_model(config, params, ("mlm_logits",))
    ranges = input_ranges(model, served_places(model), rows)
    query = ranges["encoder/layers/attention/query/kernel"]
    if share:
        least, largest = least.min(keepdims=True), largest.max(keepdims=True)
    np.testing.assert_allclose(query.least, least, rtol=1e-5)
    np.testing.assert_allclose(query.largest, largest, rtol=1e-5)
    # The table of words is multiplied with too; the others are only looked up.
    assert ranges["embeddings/word/embedding"].least.shape == ()
    assert "embeddings/position/embedding" not in ranges
