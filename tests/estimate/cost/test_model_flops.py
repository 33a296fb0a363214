import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from bertjax.config import ModelConfig
from bertjax.config.families import FAMILIES, family
from bertjax.estimate.cost.model_flops import layer_weights, model_flops
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.training import pretraining_loss as objectives
from bertjax.training.pretraining import pretraining
from tests.factory import random_batch, small_config
from tests.training.replaced.models import detection_config, prepared_batch

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


LENGTH = 24
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "embedding_size": 0,
    "max_position_embeddings": 32,
    # Windows have tests of their own: in rows as short as these the program computes all scores.
    "local_attention": 0,
}


def sizes_of(name):
    sizes = dict(SIZES)
    if "embedding_size" in FAMILIES[name]:
        sizes["embedding_size"] = 16
    if FAMILIES[name].get("relative_positions"):
        # The program has a product for each distance. So many rows has this table.
        sizes["relative_positions"] = 2 * LENGTH - 1
    return sizes


def product_flops(jaxpr):
    """The FLOPs of all matrix products of a program as it is traced, loops included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            terms = math.prod(shape[axis] for axis in contracted)
            total += 2 * terms * equation.outvars[0].aval.size
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            total += times * product_flops(inner)
    return total


def traced_flops(model, objective="none"):
    config = small_config(
        model=model,
        data={
            "max_seq_length": LENGTH,
            "max_predictions_per_seq": 5,
            "sentence_objective": objective,
        },
        train={"batch_size": 3},
    )
    batch = random_batch(np.random.default_rng(0), 3, LENGTH, 5, model.vocab_size)
    if objective == "none":
        del batch["next_sentence_labels"]

    def loss(params, batch):
        return objectives.pretraining_loss(model, params, batch)[0]

    params = functional.shapes(model)
    both = jax.make_jaxpr(jax.value_and_grad(loss))(params, batch)
    return config, product_flops(both.jaxpr)


# Each has parts that no other one of these has; those of the rest are among them.
DISTINCT = ("modernbert", "neobert", "deberta-v2", "gpt_bert")


@pytest.mark.parametrize(
    "name",
    [n if n in DISTINCT else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def test_a_step_of_each_family_has_the_flops_of_the_products_in_its_program(name):
    model = family(name, **sizes_of(name))
    config, traced = traced_flops(model)
    assert traced == model_flops(config).total


@pytest.mark.parametrize(
    "fields",
    [
        {"num_key_value_heads": 2},
        {"num_key_value_heads": 1, "value_gate": True, "feed_forward": "gated"},
        {"relative_positions": 47, "relative_projections": "own", "value_gate": True},
        {"embedding_size": 16, "mlm_tied": False},
        {"mlm_transform": False, "mlm_tied": False, "pooler": "none"},
    ],
    ids=lambda fields: " ".join(fields),
)
def test_each_part_has_the_flops_of_its_products(fields):
    model = ModelConfig(**SIZES | fields)
    config, traced = traced_flops(model, "next_sentence")
    assert traced == model_flops(config).total


@pytest.mark.parametrize(
    "generator", ["tied", pytest.param("disentangled", marks=pytest.mark.slow)]
)
def test_two_networks_have_the_flops_of_the_products_of_both(generator):
    config = detection_config(generator=generator)
    objective, batch = pretraining(config), prepared_batch(config)

    def loss(params, batch):
        sums = objective.sums(params, batch, key=None, layout=ANYWHERE)
        return objective.loss(sums, objective.counts(batch))

    params = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    both = jax.make_jaxpr(jax.value_and_grad(loss))(params, batch)
    assert product_flops(both.jaxpr) == model_flops(config).total


def attention_flops(length, **fields):
    model = ModelConfig(**SIZES | {"max_position_embeddings": 4096} | fields)
    data = {"max_seq_length": length, "max_predictions_per_seq": length - 1}
    return model_flops(wide_config(model, **data)).attention


def test_a_window_counts_its_tokens_and_not_those_that_blocks_of_queries_see():
    per_key = 12 * 32 * 4 * 2048  # D, rows, ids
    flops = attention_flops(2048, local_attention=128, global_attn_every_n_layers=2)
    assert flops == per_key * (2048 + 129)
    whole = attention_flops(2048, local_attention=4094, global_attn_every_n_layers=0)
    assert whole == attention_flops(2048)


def test_relative_positions_count_the_rows_of_their_table_that_occur():
    products = 12 * 32 * 4 * 512 * 2  # D, rows, ids, layers
    table = 2 * 12 * 32**2 * 64  # layers, D^2 of queries and of keys forward and backward, rows
    added = attention_flops(512, relative_positions=64) - attention_flops(512)
    assert added == products * 64 + table
    # In rows of 16 ids there are 31 distances.
    added = attention_flops(16, relative_positions=64) - attention_flops(16)
    assert added == products * 31 * 16 // 512 + table
