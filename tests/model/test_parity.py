"""Our model beside `transformers`' with the same weights."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bertjax
from bertjax.config import ModelConfig

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.factory import random_batch, unrepeated  # noqa: E402
from tests.programs import encode, init  # noqa: E402
from tests.reference import params_of, reference_batch, reference_model, tensors_of  # noqa: E402


@st.composite
def cases(draw):
    """A small model of any shape, its seed, and a batch.

    The batch has rows of every length, both segments, and a full row.
    """
    heads = draw(st.integers(1, 4))
    length = draw(st.integers(6, 24))
    config = ModelConfig(
        vocab_size=draw(st.integers(12, 300)),
        hidden_size=heads * draw(st.integers(8, 16)),
        num_hidden_layers=draw(st.integers(1, 4)),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(1, 80)),
        max_position_embeddings=length + draw(st.integers(0, 8)),
        type_vocab_size=draw(st.integers(2, 3)),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_tanh", "relu"])),
        initializer_range=draw(st.sampled_from([0.02, 0.1])),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    seed = draw(st.integers(0, 2**31))
    rows, predictions = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    batch = unrepeated(random_batch(rng, rows, length, predictions, config.vocab_size))
    batch["input_mask"][0] = 1  # a full row
    batch["input_ids"][0] = rng.integers(5, config.vocab_size, length)
    return config, seed, batch


def difference(ours, theirs):
    return float(np.abs(np.asarray(ours) - theirs.detach().numpy()).max())


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, batch):
    encoded = bertjax.encode(config, params, batch, keep_layers=True)
    pooled = bertjax.pool(config, params, encoded.hidden_BxLxD)
    return {
        "layers": [encoded.embedded_BxLxD, *encoded.layers_NxBxLxD],
        "pooled": pooled,
        "mlm": bertjax.mlm_logits(config, params, encoded.hidden_BxLxD),
        "nsp": bertjax.nsp_logits(config, params, pooled),
    }


loss_and_gradient = jax.jit(
    jax.value_and_grad(bertjax.pretraining_loss, argnums=1, has_aux=True), static_argnums=0
)


@settings(
    max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all the cases
@given(cases())
def test_every_layer_and_score_is_the_references(largest, case):
    config, seed, batch = case
    model = reference_model(config, seed)
    params = params_of(config, model)
    with torch.no_grad():
        theirs = model(**reference_batch(batch), output_hidden_states=True)
        pooled = model.bert(
            **{
                k: reference_batch(batch)[k]
                for k in ("input_ids", "attention_mask", "token_type_ids")
            }
        )
    ours = forward(config, params, batch)
    for layer, expected in zip(ours["layers"], theirs.hidden_states, strict=True):
        largest("hidden states of every layer", difference(layer, expected), 1e-5)
    largest("pooled vector", difference(ours["pooled"], pooled.pooler_output), 1e-5)
    largest("masked-word scores", difference(ours["mlm"], theirs.prediction_logits), 1e-5)
    largest("next-sentence scores", difference(ours["nsp"], theirs.seq_relationship_logits), 1e-5)


@settings(
    max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `largest` is of all the cases
@given(cases())
def test_the_pretraining_loss_and_every_gradient_are_the_references(largest, case):
    config, seed, batch = case
    model = reference_model(config, seed)
    params = params_of(config, model)
    if not batch["masked_lm_weights"].any():
        batch["masked_lm_weights"][0, 0] = 1  # the reference's mean over no masks is not a number
    expected = model(**reference_batch(batch)).loss
    expected.backward()
    (ours, _), gradients = loss_and_gradient(config, params, batch)
    largest(
        "pretraining loss, relative", abs(float(ours) - expected.item()) / expected.item(), 1e-6
    )

    theirs = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    actual = tensors_of(jax.device_get(gradients))
    assert actual.keys() == theirs.keys()
    for name, gradient in theirs.items():
        # A key's bias moves all of a query's scores alike: its gradient is 0, and what is there is
        # rounding.
        scale = np.abs(theirs[name.replace("key.bias", "value.bias")]).max()
        error = np.abs(actual[name] - gradient).max()
        if scale > 0:
            largest("gradients, relative to the tensor's largest", float(error / scale), 1e-4)
        else:
            assert error == 0, name


def test_a_masked_lm_model_alone_gives_the_references_scores(largest):
    config = ModelConfig(
        vocab_size=120, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=40, heads=("mlm",),
    )  # fmt: skip
    model = reference_model(config, 0, "BertForMaskedLM")
    batch = random_batch(np.random.default_rng(0), 5, 33, 4, 120)
    with torch.no_grad():
        theirs = model(
            **{
                k: reference_batch(batch)[k]
                for k in ("input_ids", "attention_mask", "token_type_ids")
            }
        )
    params = params_of(config, model)
    hidden = encode(config, params, batch).hidden_BxLxD
    largest(
        "BertForMaskedLM scores",
        difference(bertjax.mlm_logits(config, params, hidden), theirs.logits),
        1e-5,
    )


def test_bfloat16_is_this_near_to_float32(largest):
    """BERT-small's shape.

    bfloat16 has 8 bits, 0.4 %, and the residual stream is rounded to it 2 N times.
    """
    config = ModelConfig(
        vocab_size=2000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    low = dataclasses.replace(config, dtype="bfloat16")
    params = init(config, jax.random.key(0))
    batch = random_batch(np.random.default_rng(0), 4, 128, 20, 2000)
    exact = np.asarray(encode(config, params, batch).hidden_BxLxD)
    rounded = np.asarray(encode(low, params, batch).hidden_BxLxD, np.float32)
    largest(
        "bfloat16: hidden states, root of the mean square",
        float(np.sqrt(np.mean((exact - rounded) ** 2))),
        0.01,
    )
    largest("bfloat16: hidden states, largest", float(np.abs(exact - rounded).max()), 0.1)
    (a, _), grads = loss_and_gradient(config, params, batch)
    (b, _), low_grads = loss_and_gradient(low, params, batch)
    largest("bfloat16: pretraining loss, relative", abs(float(a - b)) / float(a), 1e-3)
    norms = [
        np.sqrt(sum(float(np.sum(np.square(x))) for x in jax.tree.leaves(g)))
        for g in (grads, low_grads)
    ]
    apart = np.sqrt(
        sum(
            float(np.sum(np.square(x - y)))
            for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(low_grads), strict=True)
        )
    )
    largest("bfloat16: whole gradient, relative", apart / norms[0], 0.02)
