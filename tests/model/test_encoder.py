"""Drawn compositions of the encoder: each is refused in one line, or works."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import ModelConfig
from bertjax.config.layers import BIASES, PLACES
from bertjax.errors import UserError
from bertjax.model import functional

# Fields that are about speed or precision, or that say nothing of the composition.
LEFT_OUT = {"dtype", "kernels", "initializer_range", "layer_norm_eps", "exported_as"}
NUMBERS = {
    "vocab_size": [11],
    "hidden_size": [4, 8, 12],
    "num_attention_heads": [1, 2, 4],
    "attention_head_size": [0, 0, 2, 6],
    "num_hidden_layers": [1, 2, 3, 5, 7],
    "intermediate_size": [6],
    "max_position_embeddings": [8, 12],
    "position_offset": [0, 2],
    "type_vocab_size": [0, 1, 2],
    "embedding_size": [0, 3],
    "embedding_noise": [0.0, 0.0, 5.0],
    "mlm_hidden_size": [0, 5],
    "hidden_dropout_prob": [0.0, 0.2],
    "attention_probs_dropout_prob": [0.0, 0.2],
    "rotary_base": [0.5, 2.0, 1e4],
    "rotary_base_local": [0.0, 1e3],
    "rotary_scaling": [1.0, 4.0],
    "relative_positions": [0, 0, 7, 8],
    "relative_max_distance": [0, 1, 3, 100],
    "num_key_value_heads": [0, 0, 1, 2],
    "local_attention": [0, 2, 4, 8],
    "global_attn_every_n_layers": [0, 1, 2, 3],
    "first_global_layer": [0, 0, 1],
    "z_loss": [0.0, 1e-3],
    "scan_unroll": [1, 2, 9],
}
TUPLES = {
    "heads": [(), ("mlm",), ("pooler", "mlm"), ("pooler", "mlm", "nsp"), ("nsp",)],
    "biases": [(), BIASES, BIASES[1:], tuple(b for b in BIASES if b != "norm")],
    "dropout_places": [(), PLACES, PLACES[1:2]],
}


def strategy(field):
    """Draw a value of a field; the type tells the values of those in neither table."""
    if field.name in NUMBERS:
        return st.sampled_from(NUMBERS[field.name])
    if field.name in TUPLES:
        return st.sampled_from(TUPLES[field.name])
    assert field.type not in (int, float), f"{field.name}: give its numbers in NUMBERS"
    return st.booleans() if field.type is bool else st.sampled_from(choices(field.type))


def choices(literal):
    """The values of a Literal, and of all of a union of them."""
    values = []
    for argument in literal.__args__:
        values += argument.__args__ if hasattr(argument, "__args__") else [argument]
    return values


STRATEGIES = {
    field.name: strategy(field)
    for field in dataclasses.fields(ModelConfig)
    if field.name not in LEFT_OUT
}
# Most fields stay as in BERT, so that most models are not refused.
CHANGES = st.lists(
    st.sampled_from(sorted(STRATEGIES)), min_size=4, max_size=25, unique=True
).flatmap(lambda names: st.fixed_dictionaries({name: STRATEGIES[name] for name in names}))
SMALL = {name: values[-1] for name, values in NUMBERS.items() if "size" in name} | {
    "attention_head_size": 0,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 12,
    "embedding_size": 0,
    "mlm_hidden_size": 0,
    "layer_norm_eps": 1e-5,
}
# Two packed inputs, and one with padding.
BATCH = {
    "input_ids": np.arange(12, dtype=np.int32).reshape(2, 6) % 11,
    "input_mask": np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32),
    "pack_ids": np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]], np.int32),
    "position_ids": np.array([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]], np.int32),
}
POSITIONS, LABELS = np.array([[0, 2], [1, 0]]), np.array([[3, 4], [5, 0]])
WEIGHTS = np.array([[1.0, 1.0], [1.0, 0.0]], np.float32)


def model_of(changes):
    """The model, or None if it is refused in one line."""
    try:
        return ModelConfig(**{**SMALL, **changes})
    except UserError as error:
        message = str(error)
    assert message.startswith("model.")
    assert "\n" not in message
    return None


def total(model, params):
    """A number that depends on all that the model computes, with dropout."""
    encoded = functional.encode(model, params, BATCH, key=jax.random.key(1), keep_layers=True)
    hidden = encoded.hidden_BxLxD
    assert np.shape(encoded.layers_NxBxLxD) == (model.num_hidden_layers, *hidden.shape)
    result = jnp.sum(jnp.square(hidden)) + jnp.sum(encoded.layers_NxBxLxD)
    if "mlm" in model.heads:
        given = (POSITIONS, LABELS, WEIGHTS)
        result += functional.mlm_cross_entropy(model, params, hidden, *given).loss
    if "pooler" in model.heads:
        pooled = functional.pool(model, params, hidden, input_mask=BATCH["input_mask"])
        result += jnp.sum(pooled)
        if "nsp" in model.heads:
            result += jnp.sum(functional.nsp_logits(model, params, pooled))
    return result


@settings(max_examples=4)
@given(CHANGES)
def test_a_drawn_model_is_refused_in_one_line_or_its_gradient_has_each_parameter_s_shape(changes):
    model = model_of(changes)
    if model is None:
        return
    shapes = functional.shapes(model)
    gradient = jax.eval_shape(jax.grad(lambda params: total(model, params)), shapes)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, shapes)
    is_spec = {"is_leaf": lambda node: isinstance(node, jax.sharding.PartitionSpec)}
    axes = jax.tree.leaves(functional.logical_axes(model), **is_spec)
    assert [len(spec) for spec in axes] == [len(leaf.shape) for leaf in jax.tree.leaves(shapes)]


@pytest.mark.slow
@settings(max_examples=80)
@given(CHANGES)
def test_a_drawn_model_is_refused_in_one_line_or_its_gradient_is_finite(changes):
    model = model_of(changes)
    if model is None:
        return
    params = functional.init(model, jax.random.key(0))
    value, gradient = jax.jit(jax.value_and_grad(lambda params: total(model, params)))(params)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
