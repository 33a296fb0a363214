"""Encoders whose layers a decoder cannot have end in one line."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import FAMILIES, family
from bertjax.errors import UserError
from bertjax.model.layout import ANYWHERE
from bertjax.tasks.seq2seq.composition import check_composition
from tests.tasks.seq2seq.cases import MODEL, TASK, decoder_of, encoder_of, pairs_batch

BERTS = {"bert", "roberta", "xlm-roberta", "electra", "albert", "distilbert"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_decoder_has_the_layers_of_bert_and_its_like_alone(name):
    config = family(name, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)
    if name in BERTS:
        check_composition(config)
        return
    with pytest.raises(UserError, match=r"^model\.\w+: found .*, expected .*, for a task of kind"):
        check_composition(config)


@pytest.mark.parametrize("fields,message", [
    ({"positions": "rotary"}, "model.positions: found rotary, expected learned or sinusoidal, for a task of kind seq2seq"),
    ({"norm_place": "before"}, "model.norm_place: found before, expected after, for a task"),
    ({"num_key_value_heads": 1}, "model.num_key_value_heads: found 1, expected 0, for a task"),
    ({"relative_positions": 7}, "model.relative_positions: found 7, expected 0, for a task"),
    ({"biases": ("mlp",)}, "model.biases: found mlp, expected attention among them, for a task"),
])  # fmt: skip
def test_the_task_names_the_field_before_anything_is_made(fields, message):
    config = dataclasses.replace(MODEL, **fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: TASK.init_head(config, jax.random.key(0)))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"feed_forward": "gated", "hidden_act": "silu"},
    {"norm_type": "rms_norm", "biases": ("attention", "mlm")},
    {"positions": "sinusoidal", "mlm_tied": False, "dropout_places": ("attention",)},
])  # fmt: skip
def test_a_decoder_of_another_feed_forward_or_norm_learns(fields):
    config = dataclasses.replace(MODEL, **fields)
    params = {**encoder_of(config, 0), "tasks": {"reverse": decoder_of(config, 1)}}
    begun = TASK.initial_params(config, params["tasks"]["reverse"], encoder_of(config, 0))
    assert jax.tree.structure(begun) == jax.tree.structure(params["tasks"]["reverse"])
    params = {**params, "tasks": {"reverse": begun}}
    batch = pairs_batch(np.random.default_rng(0))

    @jax.jit
    def learn(params):
        def loss(params):
            logits = TASK.logits(config, params, batch, key=jax.random.key(1), layout=ANYWHERE)
            return TASK.sums(logits, batch)["loss"]

        return jax.value_and_grad(loss)(params)

    loss, gradient = learn(params)
    changed = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert learn(changed)[0] < loss
