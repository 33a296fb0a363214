"""Files that look like those of a model that bertjax computes, and mean another one."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import bertjax
from bertjax.config import family
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.checkpoints.families.matching import matching_family
from bertjax.interop.checkpoints.families.table import check_config, family_of, read_config

safetensors = pytest.importorskip("safetensors.numpy")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
FULL, SLIDING = "full_attention", "sliding_attention"
BASES = {FULL: {"rope_theta": 50.0}, SLIDING: {"rope_theta": 5.0}}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": "p2c|c2p",
    "max_position_embeddings": 64,
}


def read(values):
    described = family_of(values, "config.json")
    config = read_config(described, values, "config.json")
    check_config(described, values, "config.json", config)
    return config


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("deberta-v2", {**DEBERTA, "max_relative_positions": 5}, "max_relative_positions: found 5, expected 6 or more, for max_position_embeddings 64"),
        ("modernbert", {"local_attention": 0}, "local_attention: found 0, expected 2 or more"),
        ("modernbert", {"local_attention": 1}, "local_attention: found 1, expected 2 or more"),
        ("ultrabert", {"sliding_window": 0}, "sliding_window: found 0, expected 1 or more"),
        ("modernbert", {"sliding_window": 64}, "sliding_window: found 64, expected no such field"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters: found {'type': 'linear', 'factor': 2.0}, expected rope_type default or linear, in place of type"),
        ("ultrabert", {"global_attn_every_n_layers": 1}, "global_attn_every_n_layers: found 1"),
        ("ultrabert", {"global_rope_theta": 50.0}, "global_rope_theta: found 50.0"),
        ("ultrabert", {"local_rope_theta": 50.0}, "local_rope_theta: found 50.0"),
        ("ultrabert", {"rope_scaling": BASES}, "rope_scaling: found {"),
        ("nomic_bert", {"num_attention_heads": {}}, "num_attention_heads: found {}, expected a whole number"),
        ("eurobert", {"tie_word_embeddings": True}, "tie_word_embeddings: found True, expected False"),
        ("ultrabert", {"tie_word_embeddings": True}, "tie_word_embeddings: found True, expected False"),
    ],
)  # fmt: skip
def test_a_value_with_another_meaning_is_refused_without_any_head(name, changes, expected):
    with pytest.raises(UserError) as error:
        read({"model_type": name, **changes})
    assert f"config.json: {expected}" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_matter_is_read():
    # 4 distances have a bucket each, and rows of 5 tokens have no more.
    short = {**DEBERTA, "max_relative_positions": 5, "max_position_embeddings": 5}
    assert read({"model_type": "deberta-v2", **short}).relative_max_distance == 5
    assert read({"model_type": "deberta-v2", **DEBERTA, "max_relative_positions": 6})
    no_windows = {"layer_types": [FULL] * 3, "num_hidden_layers": 3}
    assert not read(
        {"model_type": "modernbert", "local_attention": 0, **no_windows}
    ).local_attention
    assert not read({"model_type": "ultrabert", "sliding_window": 0, **no_windows}).local_attention


@pytest.mark.parametrize(
    "values",
    [
        {"rope_scaling": {"type": "default", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": BASES},
        {"rope_parameters": {FULL: {"rope_theta": 50.0}}, "local_rope_theta": 7.0},
    ],
)
def test_the_scaling_of_modernbert_is_that_of_transformers(values):
    config = read({"model_type": "modernbert", **values})
    # The class changes the objects that it is given.
    theirs = transformers.ModernBertConfig(**json.loads(json.dumps(values))).rope_parameters
    bases = (config.rotary_base, config.rotary_base_local)
    for kind, base in zip((FULL, SLIDING), bases, strict=True):
        scaling = theirs[kind].get("factor", 1.0) if theirs[kind]["rope_type"] == "linear" else 1.0
        assert (base, config.rotary_scaling) == (theirs[kind]["rope_theta"], scaling)


def test_an_object_without_a_base_has_that_of_transformers():
    given = {FULL: {"rope_type": "default"}, SLIDING: {"rope_theta": 5.0}}
    config = read({"model_type": "ultrabert", "rope_parameters": given})
    copied = json.loads(json.dumps(given))
    theirs = transformers.UltrabertConfig(rope_parameters=copied).rope_parameters
    expected = (theirs[FULL]["rope_theta"], theirs[SLIDING]["rope_theta"])
    assert (config.rotary_base, config.rotary_base_local) == expected


def test_a_model_whose_far_distances_the_class_counts_otherwise_is_not_exported():
    before = family("deberta-v2", **{**SIZES, "max_position_embeddings": 16}, relative_positions=64)
    assert matching_family(before).name == "deberta-v2"
    longer = dataclasses.replace(before, max_position_embeddings=64, relative_max_distance=16)
    message = "model.relative_max_distance: found 16, expected 18, as in deberta-v2"
    with pytest.raises(UserError, match=message):
        matching_family(longer)
    assert matching_family(dataclasses.replace(longer, relative_max_distance=18))
    # Rows of 17 tokens have only distances with a bucket of their own.
    assert matching_family(dataclasses.replace(longer, max_position_embeddings=17))


@pytest.mark.parametrize(
    "name, missing, kind",
    [
        ("eurobert", "lm_head.weight", "EuroBertForMaskedLM"),
        ("ultrabert", "cls.weight", "UltrabertForMaskedLM"),
        ("neobert", "decoder.bias", "NeoBERTLMHead"),
        ("modernbert", "decoder.bias", "ModernBertForMaskedLM"),
    ],
)
def test_a_file_that_lacks_the_head_of_its_class_is_refused(name, missing, kind, tmp_path):
    config = family(name, **SIZES)
    shapes = bertjax.model.functional.shapes(config)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    huggingface.save(tmp_path, config, params)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.load_file(file)
    assert "mlm" in huggingface.load(tmp_path)[0].heads
    # Whoever drops the head has said so.
    if name == "eurobert":
        assert huggingface.load(tmp_path, ["lm_head."])[0].heads == ()
    del tensors[missing]
    safetensors.save_file(tensors, file)
    with pytest.raises(UserError, match=f"{missing}: found no such tensor.*, for {kind}"):
        huggingface.load(tmp_path)
