"""The presets of families: their figures are the published ones, and each trains."""

import contextlib
import dataclasses
import math

import jax
import pytest

import bertjax
from bertjax.config import FAMILIES, Config, MeshConfig, family, load_config, preset_names
from bertjax.errors import UserError
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary
from bertjax.model import functional
from bertjax.parallel.mesh import make_mesh
from bertjax.training import step as steps
from bertjax.training.pretraining import pretraining
from tests.tiny_library import write_library

# From name to family, N, D, H, F, V (arXiv 2412.13663, 2507.11412, 2502.19587, 2111.09543,
# 2410.24159, 2503.05500).
SIZES = {
    "modernbert/base": ("modernbert", 22, 768, 12, 1152, 50_368),
    "modernbert/large": ("modernbert", 28, 1024, 16, 2624, 50_368),
    "ettin/17m": ("modernbert", 7, 256, 4, 384, 50_368),
    "ettin/32m": ("modernbert", 10, 384, 6, 576, 50_368),
    "ettin/68m": ("modernbert", 19, 512, 8, 768, 50_368),
    "ettin/150m": ("modernbert", 22, 768, 12, 1152, 50_368),
    "neobert": ("neobert", 28, 768, 12, 2048, 30_522),
    "deberta_v3/xsmall": ("deberta-v2", 12, 384, 6, 1536, 128_100),
    "deberta_v3/small": ("deberta-v2", 6, 768, 12, 3072, 128_100),
    "deberta_v3/base": ("deberta-v2", 12, 768, 12, 3072, 128_100),
    "gpt_bert/small": ("gpt_bert", 12, 384, 6, 1280, 8192),
    "gpt_bert/base": ("gpt_bert", 12, 768, 12, 2560, 16_384),
    "eurobert/210m": ("eurobert", 12, 768, 12, 3072, 128_256),
}
# What a preset sets beside its sizes. The first phase of training has this base in all layers.
OTHER_FIELDS = {"dtype", "rotary_base", "initializer_range", "z_loss"}


def gpt_bert_parameters(hidden, feed_forward, vocabulary):
    embeddings = (vocabulary + 63 + 2) * hidden
    layer = 5 * (hidden**2 + hidden) + 3 * hidden * feed_forward
    # Each of the 24 sublayers has a weight for the embeddings and for each output so far.
    return embeddings + 12 * layer + sum(range(2, 26)) + hidden**2 + hidden + vocabulary


PARAMETERS = {
    "modernbert/base": 149_655_232,
    "modernbert/large": 395_881_664,
    "ettin/17m": 16_913_600,
    "ettin/32m": 32_081_344,
    "ettin/68m": 68_457_664,
    "ettin/150m": 149_655_232,
    "deberta_v3/xsmall": 70_958_820,
    "deberta_v3/base": 184_551_780,
    # Six layers of 12 D^2 + 13 D fewer.
    "deberta_v3/small": 184_551_780 - 6 * 7_087_872,
    "eurobert/210m": 310_266_624,
    # Published as 250, 119 and 30 million. Embeddings, logits, layers, and for the last two relative
    # positions, the head's linear layer and the mix of layers.
    "neobert": 30_522 * (2 * 768 + 1) + 28 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768,
    "gpt_bert/base": gpt_bert_parameters(768, 2560, 16_384),
    "gpt_bert/small": gpt_bert_parameters(384, 1280, 8192),
}
# Learning rate, weight decay, decay rate and epsilon of the second moment, rows of a batch, tokens
# of warmup and of the run in billions; length and share of masked tokens.
WARM_UP_AND_CONSTANT = {
    "modernbert/base": (8e-4, 1e-5, 0.98, 1e-6, 4608, 3, 1719, 1024, 0.3),
    "modernbert/large": (5e-4, 1e-5, 0.98, 1e-6, 4928, 2, 1719, 1024, 0.3),
    "ettin/17m": (3e-3, 3e-4, 0.98, 1e-6, 4608, 4, 1700, 1024, 0.3),
    "ettin/32m": (3e-3, 3e-4, 0.98, 1e-6, 4608, 4, 1700, 1024, 0.3),
    "ettin/68m": (3e-3, 3e-4, 0.98, 1e-6, 4608, 3, 1700, 1024, 0.3),
    "ettin/150m": (8e-4, 1e-5, 0.98, 1e-6, 4608, 3, 1700, 1024, 0.3),
    "eurobert/210m": (1e-4, 0.1, 0.95, 1e-5, 4608, 18.9, 4800, 2048, 0.5),
}


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(functional.shapes(model)))


def test_there_is_a_row_here_for_each_preset_of_a_family():
    folders = {name.partition("/")[0] for name in SIZES}
    assert {name for name in preset_names() if name.partition("/")[0] in folders} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_model_is_its_family_s_row_with_the_published_sizes(name):
    row, layers, hidden, heads, feed_forward, vocabulary = SIZES[name]
    model = load_config(name).model
    expected = family(
        row,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        vocab_size=vocabulary,
    )
    differing = {
        field.name
        for field in dataclasses.fields(model)
        if getattr(model, field.name) != getattr(expected, field.name)
    }
    assert differing <= OTHER_FIELDS
    # Before the phase with long rows, local and global layers have the same base.
    assert model.rotary_base == 10_000
    assert model.rotary_base_local in (0, 10_000)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(name):
    model = load_config(name).model
    # What is stacked has room for a norm before the first sublayer, and for weights of later outputs
    # (docs/parameters.md).
    unused = 0 if model.first_norm else model.hidden_size
    if model.layer_mix:
        unused += model.num_hidden_layers * (2 * model.num_hidden_layers - 1)
    assert count(model) - unused == PARAMETERS[name]


# Counted in `transformers` 5.24, with the head for masked words. The defaults of its RoBERTa have a
# second token type, which the published model lacks.
OTHERS = [
    ("nomic_bert", {"vocab_size": 30_528}, 137_354_304),
    ("gte", {"vocab_size": 250_048}, 306_210_496),
    ("roberta", {"vocab_size": 50_265, "type_vocab_size": 2}, 124_698_201),
    ("albert", {"vocab_size": 30_000}, 11_813_810),
]


@pytest.mark.parametrize("name,fields,parameters", OTHERS)
def test_families_without_a_preset_have_as_many_parameters_as_elsewhere(name, fields, parameters):
    assert count(family(name, **fields)) == parameters


@pytest.mark.parametrize("name", WARM_UP_AND_CONSTANT)
def test_runs_with_a_constant_learning_rate_are_as_published(name):
    rate, decay, b2, eps, rows, warmup, tokens, length, masked = WARM_UP_AND_CONSTANT[name]
    config = load_config(name)
    optimizer = config.optimizer
    assert optimizer.peak_learning_rate == rate
    # Their optimizer does not multiply the decay by the rate, except EuroBERT's.
    of_step = optimizer.weight_decay * (1 if name == "eurobert/210m" else rate)
    assert of_step == pytest.approx(decay)
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, b2, eps)
    assert (config.data.max_seq_length, config.data.mlm_probability) == (length, masked)
    assert config.train.batch_size == rows
    per_step = rows * length
    assert config.train.steps == pytest.approx(tokens * 1e9 / per_step, abs=0.5)
    # EuroBERT's warmup was published in steps, 2,000.
    assert optimizer.warmup_steps == pytest.approx(warmup * 1e9 / per_step, abs=3)
    if name == "modernbert/large":
        assert optimizer.schedule == "multistep"
        (milestone,) = optimizer.milestones
        assert milestone == pytest.approx(900e9 / per_step, abs=1)
        assert optimizer.decay_factor * rate == pytest.approx(5e-5)
    else:
        assert optimizer.schedule == "constant"


def test_the_other_runs_are_as_published():
    neobert = load_config("neobert")
    assert neobert.optimizer.peak_learning_rate == 6e-4
    assert neobert.optimizer.end_learning_rate == pytest.approx(6e-5)
    assert (neobert.optimizer.b2, neobert.optimizer.eps) == (0.95, 1e-8)
    assert (neobert.optimizer.warmup_steps, neobert.train.steps) == (2000, 1_000_000)
    assert neobert.train.batch_size * neobert.data.max_seq_length == 2**21
    assert neobert.data.mlm_probability == 0.2
    for name, rate, rows in [("base", 1e-4, 256), ("small", 1e-4, 256), ("xsmall", 3e-4, 64)]:
        deberta = load_config(f"deberta_v3/{name}")
        assert (deberta.optimizer.peak_learning_rate, deberta.train.batch_size) == (rate, rows)
        assert (deberta.optimizer.warmup_steps, deberta.optimizer.weight_decay) == (10_000, 0.01)
        assert (deberta.data.max_seq_length, deberta.data.mlm_probability) == (512, 0.15)
    for name, rate, updates in [("base", 1e-2, 15_625), ("small", 1.41e-2, 7812)]:
        gpt_bert = load_config(f"gpt_bert/{name}")
        optimizer, train = gpt_bert.optimizer, gpt_bert.train
        assert (optimizer.algorithm, optimizer.peak_learning_rate) == ("lamb", rate)
        assert optimizer.end_learning_rate == pytest.approx(rate / 10)
        assert (optimizer.b2, optimizer.eps, optimizer.weight_decay) == (0.98, 1e-8, 0.1)
        assert optimizer.max_grad_norm == 2
        # The published batch grows from a quarter to the whole, so it is 5/8 on average.
        assert (train.batch_size, train.max_batch_size) == (8192, 32_768)
        assert train.steps * 8192 == pytest.approx(updates * 32_768 * 5 / 8, rel=1e-4)
        assert optimizer.warmup_steps == pytest.approx(0.016 * train.steps, abs=1)
        assert gpt_bert.model.z_loss == 1e-4


@pytest.mark.parametrize("name", SIZES)
def test_all_train_on_masked_words_alone_with_new_masks_in_each_step(name):
    config = load_config(name)
    assert config.data.sentence_objective == "none"
    assert config.data.dynamic_masking
    assert config.model.heads == ("mlm",)
    whole = math.ceil(config.data.mlm_probability * config.data.max_seq_length)
    assert config.data.max_predictions_per_seq == whole
    assert config.tokenizer.vocab_size <= config.model.vocab_size


def test_another_name_is_refused_with_the_nearest():
    with pytest.raises(
        UserError,
        match="family: found 'modernbart', expected one of bert, .*; the nearest is modernbert",
    ):
        family("modernbart")


def test_each_row_of_the_table_is_a_model():
    assert all(family(name) for name in FAMILIES)


def narrow(name) -> Config:
    """The preset at widths of a few numbers and in short rows, all else as it is."""
    config = load_config(name)
    length = 32
    # Two patterns of global and local layers, and one more layer.
    layers = 7 if config.model.alternates else 3
    return config.replace(
        data={
            "corpus": ("corpus.txt",),
            "prepared_dir": "prepared",
            "max_seq_length": length,
            "max_predictions_per_seq": math.ceil(config.data.mlm_probability * length),
            "validation_fraction": 0.2,
            "num_shards": 1,
            "workers": 1,
        },
        tokenizer={"vocab_size": 300},
        model={
            "vocab_size": 384,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "max_position_embeddings": 64,
        },
        optimizer={"warmup_steps": 1, "milestones": (2,)},
        train={
            "steps": 3,
            "batch_size": 8,
            "batch_size_schedule": "constant",
            "log_every_steps": 1,
            "eval_every_steps": 3,
            "save_every_steps": 3,
        },
    )


def test_the_train_step_of_a_narrow_preset_is_traced():
    config = narrow("modernbert/base")
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    objective = pretraining(config, abstract_vocabulary(config))
    state = steps.abstract_state(config, mesh, objective)
    new_state, metrics = jax.eval_shape(
        lambda state, batch: steps.train_step(config, state, batch, objective),
        state,
        abstract_batch(config, mesh),
    )
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert metrics["mlm_loss"].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_narrow_preset_is_prepared_and_trained(name, tmp_path):
    write_library(tmp_path)
    with contextlib.chdir(tmp_path):
        config = narrow(name)
        bertjax.prepare(config)
        result = bertjax.train(config, "run")
    assert result.step == 3
    assert result.metrics["mlm_loss"] < 1.5 * math.log(384)
