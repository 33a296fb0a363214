import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import ModelConfig
from bertjax.estimate.cost.model_flops import layer_weights, model_flops
from bertjax.model import functional
from bertjax.training import pretraining_loss as objectives
from tests.factory import random_batch, small_config

WIDE = ModelConfig(
    vocab_size=4096,
    hidden_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=128,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    scan_unroll=3,  # XLA counts the body of a loop once
)
ALBERT = dataclasses.replace(WIDE, embedding_size=64, share_layers=True)


def wide_config(model=WIDE, **data):
    settings = {"max_seq_length": 128, "max_predictions_per_seq": 20} | data
    return small_config(model=model, data=settings, train={"batch_size": 4})


@pytest.mark.parametrize("model", [WIDE, ALBERT], ids=["bert", "albert"])
@pytest.mark.parametrize("objective", ["next_sentence", "none"])
def test_the_formula_agrees_with_what_xla_counts_of_the_compiled_loss_and_gradient(
    model, objective
):
    config = wide_config(model, sentence_objective=objective)
    batch = random_batch(np.random.default_rng(0), 4, 128, 20, 4096)
    if objective == "none":
        batch = {name: x for name, x in batch.items() if name != "next_sentence_labels"}

    def loss(params, batch):
        return objectives.pretraining_loss(config.model, params, batch)[0]

    def counted(function):
        return (
            jax.jit(function)
            .lower(functional.shapes(model), batch)
            .compile()
            .cost_analysis()["flops"]
        )

    expected = model_flops(config).total
    # XLA counts softmax, norms and the activation too: a few in a hundred at this width.
    assert 1.0 < counted(loss) / (expected / 3) < 1.10
    assert 1.0 < counted(jax.grad(loss)) / expected < 1.10


def test_bert_base_as_it_is_known():
    config = small_config(
        model=ModelConfig(), data={"max_seq_length": 128, "max_predictions_per_seq": 20}
    )
    assert layer_weights(config.model) == 12 * (4 * 768**2 + 2 * 768 * 3072) == 84_934_656
    flops = model_flops(config)
    tokens = 8 * 128
    assert flops.layers == 6 * 84_934_656 * tokens
    assert flops.attention == 12 * 12 * 128 * 768 * tokens
    assert flops.heads == 6 * 8 * (20 * (768**2 + 768 * 30522) + 768**2 + 2 * 768)
    assert flops.total == flops.layers + flops.attention + flops.heads


def test_what_is_computed_again_and_how_the_batch_is_worked_make_no_difference():
    plain = wide_config()
    model = dataclasses.replace(WIDE, remat="full")
    again = dataclasses.replace(
        plain, model=model, train=dataclasses.replace(plain.train, gradient_accumulation_steps=2)
    )
    assert model_flops(again) == model_flops(plain)
