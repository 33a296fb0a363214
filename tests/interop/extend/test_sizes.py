import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import FAMILIES, family
from bertjax.errors import UserError
from bertjax.interop.extend.sizes import Sizes, extend_sizes, layer_index, middle_index
from bertjax.model import functional
from tests.factory import SMALL_MODEL

TINY = {
    "vocab_size": 64,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
WIDER = Sizes(hidden_size=20, intermediate_size=30)


@functools.cache
def random_params(config):
    """Parameters of which no two numbers are equal, so that each shows where it came from."""
    shapes = functional.shapes(config)
    leaves = iter(range(1_000_000))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: next(leaves) + rng.random(s.shape, np.float32), shapes)


def tiled_by_hand(small, size):
    """ModernBERT's loop over one axis: the small one in the middle, repeated to both sides."""
    offset, count = (size - len(small)) // 2, len(small)
    result = [None] * size
    result[offset : offset + count] = small
    for i in range(offset):
        result[offset - 1 - i] = small[count - 1 - i % count]
    for i in range(offset + count, size):
        result[i] = small[(i - offset) % count]
    return result


@given(st.integers(1, 12), st.integers(0, 40))
def test_an_axis_is_tiled_from_its_middle_as_by_the_loop_of_the_authors(before, more):
    index = middle_index(before, before + more)
    assert index.tolist() == tiled_by_hand(list(range(before)), before + more)


@given(st.integers(1, 12), st.integers(0, 40))
def test_layers_follow_each_other_as_they_did_and_each_is_there(before, more):
    index = layer_index(before, before + more)
    assert (np.diff(index) >= 0).all()
    assert set(index.tolist()) == set(range(before))
    if more < before:  # the formula of ModernBERT names no such layer beyond that
        expected = [round(i * before / (before + more)) for i in range(before + more)]
        assert index.tolist() == expected


def test_the_layers_of_modernbert_large_are_those_of_base_that_its_authors_took():
    index = layer_index(22, 28).tolist()
    assert index[:12] == [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9]
    assert index[-1] == 21


@pytest.mark.parametrize("name", [
    "modernbert",
    "gpt_bert",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(FAMILIES)
        if name not in ("modernbert", "gpt_bert")
    ),
])  # fmt: skip
def test_a_wider_model_of_each_family_has_each_tensor_in_the_middle(name):
    fields = {"relative_positions": 15} if FAMILIES[name].get("relative_positions") else {}
    config = family(name, **TINY | fields)
    params = random_params(config)
    larger, wider = extend_sizes(config, params, WIDER)
    assert (larger.num_attention_heads, larger.head_width) == (5, config.head_width)
    assert jax.tree.map(np.shape, wider) == jax.tree.map(
        lambda s: s.shape, functional.shapes(larger)
    )
    attention = params["encoder"]["layers"]["attention"]
    now = wider["encoder"]["layers"]["attention"]
    # Two heads become five: 1 0 1 0 1, as the middle of five begins at head 1.
    heads, width = [1, 0, 1, 0, 1], middle_index(8, 20)
    query = np.asarray(attention["query"]["kernel"])[:, width][:, :, heads]
    np.testing.assert_array_equal(now["query"]["kernel"], query)
    output = np.asarray(attention["output"]["kernel"])[:, heads][..., width]
    np.testing.assert_array_equal(now["output"]["kernel"], output)
    up = np.asarray(params["encoder"]["layers"]["mlp"]["up"]["kernel"])
    inner = middle_index(12, 30)
    np.testing.assert_array_equal(
        wider["encoder"]["layers"]["mlp"]["up"]["kernel"], up[:, width][..., inner]
    )


def test_norms_of_the_heads_follow_the_heads_and_others_the_width():
    config = family("gpt_bert", **TINY | {"relative_positions": 15}, biases=("norm", "attention"))
    config = dataclasses.replace(config, norm_scale=True)
    params = random_params(config)
    _, wider = extend_sizes(config, params, WIDER)
    scale = lambda p, name: np.asarray(p["encoder"]["layers"][name]["scale"])  # noqa: E731
    by_heads = np.asarray(params["encoder"]["layers"]["attention"]["inner_norm"]["scale"])
    by_heads = by_heads.reshape(2, 2, 4)[:, [1, 0, 1, 0, 1]].reshape(2, 20)
    now = wider["encoder"]["layers"]["attention"]["inner_norm"]["scale"]
    np.testing.assert_array_equal(now, by_heads)
    np.testing.assert_array_equal(
        scale(wider, "mlp_layer_norm"), scale(params, "mlp_layer_norm")[:, middle_index(8, 20)]
    )


@pytest.mark.parametrize("groups,size,more", [(1, 2, 2), (2, 2, 1), (3, 1, 4)])
def test_heads_that_share_keys_stay_together(groups, size, more):
    heads = groups * size
    config = family(
        "eurobert",
        **TINY | {"num_attention_heads": heads, "hidden_size": heads * 2},
        num_key_value_heads=groups,
    )
    shapes = functional.shapes(config)
    params = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    # The number of the head of keys that a head of queries reads, and that of keys its own.
    attention = params["encoder"]["layers"]["attention"]
    attention["query"]["kernel"] += (np.arange(heads) // size)[None, None, :, None]
    attention["key"]["kernel"] += np.arange(groups)[None, None, :, None]
    wanted = (groups + more) * size
    larger, wider = extend_sizes(config, params, Sizes(hidden_size=wanted * 2))
    assert (larger.num_attention_heads, larger.num_key_value_heads) == (wanted, groups + more)
    now = wider["encoder"]["layers"]["attention"]
    queries = np.asarray(now["query"]["kernel"])[0, 0, :, 0]
    keys = np.asarray(now["key"]["kernel"])[0, 0, :, 0]
    np.testing.assert_array_equal(queries, np.repeat(keys, size))


def test_a_deeper_model_has_whole_layers_and_the_same_shares_of_everything_else():
    config = family("modernbert", **TINY | {"num_hidden_layers": 4})
    params = random_params(config)
    larger, deeper = extend_sizes(config, params, Sizes(num_hidden_layers=6))
    assert larger.num_hidden_layers == 6
    layers = deeper["encoder"].pop("layers")
    before = params["encoder"]["layers"]
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new, old[np.array([0, 1, 1, 2, 3, 3])]),
        layers,
        before,
    )
    rest = {**params, "encoder": {k: v for k, v in params["encoder"].items() if k != "layers"}}
    jax.tree.map(np.testing.assert_array_equal, deeper, rest)


def test_shared_layers_need_no_copies_to_be_more():
    config = family("albert", **TINY | {"embedding_size": 4})
    params = random_params(config)
    larger, deeper = extend_sizes(config, params, Sizes(num_hidden_layers=5))
    assert larger.num_hidden_layers == 5
    jax.tree.map(np.testing.assert_array_equal, deeper, params)


def test_no_size_asked_for_changes_nothing():
    params = random_params(SMALL_MODEL)
    config, same = extend_sizes(SMALL_MODEL, params, Sizes())
    assert config == SMALL_MODEL
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert math.prod(same["mlm"]["bias"].shape) == SMALL_MODEL.vocab_size


@pytest.mark.parametrize("name,fields,sizes,message", [
    ("bert", {}, Sizes(hidden_size=4), "model.hidden_size: found 4, expected 8 or more"),
    ("bert", {}, Sizes(hidden_size=2**20), "model: found a model of these sizes, which takes .* GiB or more, expected a smaller one"),
    ("bert", {}, Sizes(num_hidden_layers=1), "model.num_hidden_layers: found 1, expected 2 or more"),
    ("bert", {}, Sizes(intermediate_size=11), "model.intermediate_size: found 11, expected 12 or more"),
    ("bert", {}, Sizes(hidden_size=10), "model.num_attention_heads: found 2 heads for a hidden size of 10, expected heads of width 4"),
    ("bert", {}, Sizes(num_attention_heads=4), "model.num_attention_heads: found 4 heads for a hidden size of 8, expected heads of width 4"),
    ("eurobert", {"num_key_value_heads": 1}, Sizes(hidden_size=12), "model.num_attention_heads: found 3, expected a multiple of 2, the heads that share"),
    ("gpt_bert", {}, Sizes(num_hidden_layers=3), "model.num_hidden_layers: found 3, expected 2, as it was, for a model with layer_mix"),
])  # fmt: skip
def test_sizes_that_do_not_suit_the_model_are_refused(name, fields, sizes, message):
    config = family(name, **TINY, **fields)
    with pytest.raises(UserError, match=message):
        extend_sizes(config, {}, sizes)
