"""Replaced-token detection in the configuration: the generator's sizes, and what is refused."""

import dataclasses

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, ReplacedConfig, family, load_config
from bertjax.config.objectives.replaced import generator_of
from bertjax.errors import UserError
from bertjax.model import functional
from tests.training.replaced.models import MODEL, detection_config


def test_the_generator_of_electra_small_has_a_quarter_of_its_width():
    config = load_config("electra/small")
    generator = generator_of(config.model, config.replaced)
    sizes = generator.hidden_size, generator.num_attention_heads, generator.intermediate_size
    assert sizes == (64, 1, 256)
    assert (generator.num_hidden_layers, generator.embedding_size) == (12, 128)
    assert generator.heads == ("mlm",)


def test_the_published_fields_of_electra_small():
    """arXiv 2003.10555, table 6, and configure_pretraining.py of its authors."""
    config = load_config("electra/small")
    model, data, optimizer = config.model, config.data, config.optimizer
    assert (model.num_hidden_layers, model.hidden_size, model.intermediate_size) == (12, 256, 1024)
    assert (model.num_attention_heads, model.embedding_size, model.vocab_size) == (4, 128, 30_522)
    assert (model.hidden_dropout_prob, model.attention_probs_dropout_prob) == (0.1, 0.1)
    assert (data.mlm_probability, data.max_seq_length, data.max_predictions_per_seq) == (
        0.15,
        128,
        int(0.155 * 128),
    )
    assert (optimizer.peak_learning_rate, optimizer.weight_decay, optimizer.eps) == (
        5e-4,
        0.01,
        1e-6,
    )
    assert (optimizer.warmup_steps, optimizer.b1, optimizer.b2) == (10_000, 0.9, 0.999)
    assert (config.train.steps, config.train.batch_size) == (1_000_000, 128)
    assert (config.replaced.weight, config.replaced.generator_weight) == (50.0, 1.0)
    shapes = jax.tree.leaves(functional.shapes(model))
    parameters = sum(leaf.size for leaf in shapes)
    assert parameters == pytest.approx(14e6, rel=0.04)


def test_a_generator_as_wide_as_the_embeddings_does_not_project_them():
    model = dataclasses.replace(MODEL, embedding_size=8)
    assert generator_of(model, ReplacedConfig(generator_size=0.5)).embedding_size == 0
    assert generator_of(MODEL, ReplacedConfig(generator_size=0.5)).embedding_size == 16


@given(st.integers(1, 16), st.integers(1, 16))
def test_a_share_of_whole_heads_gives_them_and_their_width(heads, kept):
    heads = max(heads, kept)
    model = family("electra", num_attention_heads=heads, hidden_size=64 * heads, heads=("rtd",))
    generator = generator_of(model, ReplacedConfig(generator_size=round(kept / heads, 4)))
    assert (generator.num_attention_heads, generator.head_width) == (kept, 64)


REFUSED = [
    ({"data": {"sentence_objective": "next_sentence"}}, "data.sentence_objective: found next_s"),
    (
        {"data": {"causal_share": 0.5, "dynamic_masking": True, "max_predictions_per_seq": 15}},
        "data.causal_share: found 0.5, expected 0.0, for replaced-token detection",
    ),
    ({"optimizer": {"freeze": "encoder"}}, "optimizer.freeze: found encoder, expected none"),
    ({"optimizer": {"layer_decay": 0.9}}, "optimizer.layer_decay: found 0.9, expected 1.0"),
    ({"distill": {"teacher": "runs/x"}}, "replaced.generator: found tied beside distill.teacher"),
    ({"replaced": {"generator_size": 0.4}}, "expected whole heads of width 4, such as 0.5"),
    ({"replaced": {"generator_size": 0.1}}, "replaced.generator_size: found 0.1, a width of 2"),
    ({"replaced": {"generator_layers": 0.1}}, "replaced.generator_layers: found 0.1 of 2 layers"),
    ({"replaced": {"generator_size": 1.5}}, "replaced.generator_size: found 1.5, expected at m"),
    ({"replaced": {"weight": 0.0}}, "replaced.weight: found 0.0, expected a number above 0"),
    ({"replaced": {"generator": "both"}}, "replaced.generator: found 'both', expected"),
    ({"phases": ("steps=2", "replaced.weight=1")}, "replaced.weight"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError) as error:
        detection_config(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("heads", [("mlm",), ("rtd", "mlm")])
def test_a_head_that_would_not_be_trained_is_refused(heads):
    with pytest.raises(UserError, match=f"model.heads: found {', '.join(heads)}, expected rtd al"):
        detection_config(dataclasses.replace(MODEL, heads=heads))


def test_shifted_predictions_are_refused():
    with pytest.raises(UserError, match="model.mlm_shifted: found True, expected False, for repl"):
        detection_config(dataclasses.replace(MODEL, mlm_shifted=True))


def test_without_a_generator_the_section_is_not_used():
    assert not Config().replaced.is_used
