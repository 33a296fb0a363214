import math

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bertjax.config import family, load_config
from bertjax.model import functional

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
# The deviation of a normal distribution of deviation 1 that is cut off at 2.
CUT = 0.8796


def drawn(name, **fields):
    """The kernels and tables of a new model, by name."""
    model = family(name, **SIZES, **fields)
    init = jax.jit(functional.init, static_argnums=0)
    flat = flatten_dict(init(model, jax.random.key(0)), sep="/")
    tables = ("kernel", "embedding", "decoder", "mix")
    return {path: np.asarray(x) for path, x in flat.items() if path.endswith(tables)}


def assert_deviation(values, expected):
    # The estimate's own error is 1.1 % for 4,096 numbers.
    assert values.size >= 4000
    assert float(values.std()) == pytest.approx(expected, rel=0.05)


def test_outputs_and_the_head_are_smaller_by_the_root_of_twice_the_depth():
    # arXiv 2412.13663: the initialization named Megatron (arXiv 1909.08053).
    values = drawn("modernbert")
    last = {
        "encoder/layers/attention/output/kernel",
        "encoder/layers/mlp/down/kernel",
        "mlm/transform/kernel",
    }
    assert last < set(values)
    for path, table in values.items():
        assert_deviation(table, 0.02 * CUT / (math.sqrt(6) if path in last else 1))


def test_feed_forward_kernels_are_smaller_layer_by_layer():
    # arXiv 2410.24159: by the root of 2 i in layer i; all else by the width alone.
    deviation = math.sqrt(2 / (5 * 64))
    values = drawn("gpt_bert", initializer_range=deviation)
    # Each sublayer's own output alone is taken at first (arXiv 2402.02622).
    assert np.array_equal(values.pop("encoder/mix"), np.eye(6, 7, 1))
    scaled = {path for path in values if "/mlp/" in path}
    assert {path.split("/")[-2] for path in scaled} == {"up", "gate", "down"}
    for path, table in values.items():
        if path not in scaled:
            # The table of relative positions is the smallest, 63 x 64.
            assert_deviation(table, deviation * CUT)
            continue
        for layer in range(3):
            assert_deviation(table[layer], deviation * CUT / math.sqrt(2 * (layer + 1)))


def test_uniform_values_fill_their_range():
    # arXiv 2502.19587: between -0.02 and 0.02.
    values = drawn("neobert")
    for table in values.values():
        assert_deviation(table, 0.02 / math.sqrt(3))
        assert 0.0199 < np.abs(table).max() <= 0.02


@pytest.mark.parametrize("name,width", [("gpt_bert/base", 768), ("gpt_bert/small", 384)])
def test_presets_have_the_deviation_of_their_width(name, width):
    assert load_config(name).model.initializer_range == pytest.approx((2 / (5 * width)) ** 0.5)
