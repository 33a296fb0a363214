"""Recipes: their fields are the published ones, and they say where those are from."""

import ast
import math
import re
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from bertjax.config import family, load_config
from bertjax.config.phases.folders import configs_to_prepare
from bertjax.config.phases.resolution import phases_of
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary
from bertjax.parallel.mesh import make_mesh
from bertjax.training import step as steps
from bertjax.training.optimization.schedules import make_schedule
from bertjax.training.pretraining import pretraining
from tests.presets.cut import RECIPES, cut

ROOT = Path(__file__).parents[2]
NAMES = {
    *("paper", "modernbert", "mmbert", "ettin", "electra_small", "deberta_v3", "gpt_bert_babylm"),
    *("academic_24h", "crammed", "chinese_base", "domain"),
}


class Facts(NamedTuple):
    """What was published of a phase."""

    billions: float
    """Tokens of the phase."""
    rows: int
    length: int
    masked: float
    first: float
    """Learning rate after a warmup."""
    last: float
    """Learning rate at the end."""
    decay: float
    """Weight decay of a step at the phase's highest rate."""
    base: float = 0.0
    """Base of the rotary angles of global layers."""
    local: float = 0.0


# arXiv 2412.13663, 2509.06888 and 2507.11412, and the files that their models were trained with. A
# batch that grows is the largest one.
PHASES = {
    "modernbert": [
        Facts(1719, 4608, 1024, 0.3, 8e-4, 8e-4, 1e-5, 10_000, 10_000),
        Facts(250, 576, 8192, 0.3, 3e-4, 3e-4, 1e-5, 160_000, 10_000),
        Facts(50, 576, 8192, 0.3, 3e-4, 3e-7, 1e-5, 160_000, 10_000),
    ],
    "mmbert": [
        Facts(2000, 4608, 1024, 0.3, 8e-4, 8e-4, 8e-5, 10_000, 10_000),
        Facts(600, 4608, 8192, 0.15, 8e-4, 8e-4, 8e-5, 160_000, 160_000),
        Facts(100, 4608, 8192, 0.05, 8e-4, 1.6e-5, 8e-5, 160_000, 160_000),
    ],
    "ettin": [
        Facts(1700, 4608, 1024, 0.3, 8e-4, 8e-4, 1e-5, 10_000, 10_000),
        Facts(250, 4608, 7999, 0.3, 8e-4, 4e-4, 1e-5, 160_000, 160_000),
        Facts(50, 4608, 7999, 0.15, 4e-4, 1.6e-5, 1e-5, 160_000, 160_000),
    ],
}


def recipe(name):
    return load_config(f"recipes/{name}")


def rates(config):
    """The learning rate before each of some steps of a run, as its phases have it."""

    def rate(step):
        before = 0.0
        for phase in phases_of(config):
            if phase.rate.begin <= step < phase.end:
                optimizer = phase.config.optimizer
                schedule = make_schedule(optimizer, phase.rate.steps, before)
                return float(schedule(step - phase.rate.begin))
        raise AssertionError

    return rate


def test_there_is_each_recipe():
    assert {name.partition("/")[2] for name in RECIPES} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_recipe_says_source_hardware_time_and_figures_and_the_docs_have_its_row(name):
    text = ast.get_docstring(ast.parse((ROOT / f"configs/recipes/{name}.py").read_text()))
    (source,) = re.findall(r"Source: arXiv\s(\d{4}\.\d{5})", text) or [None]
    assert source or name == "domain"
    assert "Hardware and time:" in text
    assert "Published figure" in text
    for verb in ("prepare", "train"):
        assert f"    bertjax {verb} recipes/{name}" in text
    rows = [
        line for line in (ROOT / "docs/recipes.md").read_text().splitlines() if "recipes/" in line
    ]
    (row,) = [line for line in rows if line.startswith(f"| `recipes/{name}` |")]
    assert not source or source in row


@pytest.mark.parametrize("name", PHASES)
def test_phases_have_the_published_lengths_rates_and_masks(name):
    config = recipe(name)
    phases = phases_of(config)
    rate = rates(config)
    for phase, facts in zip(phases, PHASES[name], strict=True):
        own, per_step = (
            phase.config,
            phase.config.train.batch_size * phase.config.data.max_seq_length,
        )
        tokens = (phase.end - phase.begin) * per_step
        assert tokens == pytest.approx(facts.billions * 1e9, abs=per_step)
        grown = own.train.batch_size_schedule == "ramp"
        assert (own.train.max_batch_size if grown else own.train.batch_size) == facts.rows
        assert own.data.max_seq_length == facts.length
        assert own.data.mlm_probability == facts.masked
        assert own.data.max_predictions_per_seq == math.ceil(facts.masked * facts.length)
        optimizer = own.optimizer
        assert optimizer.peak_learning_rate == facts.first
        assert rate(phase.end - 1) == pytest.approx(facts.last, rel=0.05)
        assert optimizer.weight_decay * facts.first == pytest.approx(facts.decay)
        assert optimizer.algorithm == "stable_adamw"
        model = own.model
        assert (model.rotary_base, model.rotary_base_local or model.rotary_base) == (
            facts.base,
            facts.local,
        )
    first = phases[0].config
    per_step = first.train.batch_size * first.data.max_seq_length
    assert first.optimizer.warmup_steps == pytest.approx(3e9 / per_step, abs=1)
    billions = 60 if name == "mmbert" else 50
    assert first.train.batch_size_steps == pytest.approx(billions * 1e9 / per_step, abs=1)
    moments = (0.95, 1e-8) if name == "mmbert" else (0.98, 1e-6)
    assert (first.optimizer.b2, first.optimizer.eps) == moments


def test_mmbert_is_modernbert_with_more_words_and_draws_languages_ever_more_evenly():
    config = recipe("mmbert")
    model = load_config("modernbert/base").replace(model={"vocab_size": 256_000}).model
    assert config.model == model
    exponents = [phase.config.data.mixture_exponent for phase in phases_of(config)]
    assert exponents == [0.7, 0.5, 0.3]


def test_bert_has_both_lengths_under_one_learning_rate():
    # arXiv 1810.04805, appendix A.2.
    config = recipe("paper")
    first, second = phases_of(config)
    assert (first.end, second.end) == (900_000, 1_000_000)
    assert [p.config.data.max_seq_length for p in (first, second)] == [128, 512]
    rate = rates(config)
    assert rate(10_000) == pytest.approx(1e-4)
    assert rate(505_000) == pytest.approx(5e-5)
    assert rate(999_999) < 1.1e-10
    assert config.model == load_config("base").model


def test_deberta_trains_a_generator_of_half_the_layers_with_disentangled_embeddings():
    # arXiv 2111.09543, and rtd.sh and rtd_base.json of the authors' repository.
    config = recipe("deberta_v3")
    replaced = config.replaced
    assert replaced.generator == "disentangled"
    assert (replaced.generator_size, replaced.generator_layers, replaced.weight) == (1, 0.5, 50)
    assert config.data.mask_shares == (1, 0, 0)
    assert (config.data.masking, config.data.mlm_probability) == ("ngram", 0.15)
    assert (config.optimizer.peak_learning_rate, config.optimizer.warmup_steps) == (1e-4, 10_000)
    assert (config.train.steps, config.train.batch_size) == (1_000_000, 256)
    assert config.model == load_config("deberta_v3/base").replace(model={"heads": ("rtd",)}).model


def test_electra_is_the_preset_with_the_published_settings():
    # arXiv 2003.10555, table 6.
    config = recipe("electra_small")
    assert config == load_config("electra/small")
    assert (config.train.steps, config.train.batch_size) == (1_000_000, 128)
    assert (config.optimizer.peak_learning_rate, config.optimizer.warmup_steps) == (5e-4, 10_000)
    assert (config.replaced.generator_size, config.replaced.weight) == (0.25, 50)
    assert config.data.max_predictions_per_seq == int((0.15 + 0.005) * 128)


def test_gpt_bert_has_causal_rows_falling_masks_longer_rows_and_a_growing_batch():
    # arXiv 2410.24159, and train_10m.py of the authors' repository.
    config = recipe("gpt_bert_babylm")
    phases = phases_of(config)
    assert config.train.steps == 15_625
    assert config.data.causal_share == 1 / 16
    assert config.model.mlm_shifted
    assert config.train.ema_decay == 0.999
    begins = {}
    for phase in phases:
        begins.setdefault(phase.config.data.max_seq_length, phase.begin / config.train.steps)
        assert phase.masks == (0, 15_625)
        assert phase.config.data.max_predictions_per_seq == phase.config.data.max_seq_length - 1
    assert begins == {128: 0, 256: pytest.approx(0.7, abs=1e-4), 512: pytest.approx(0.9, abs=1e-4)}
    data = phases[0].config.data
    assert (data.mlm_probability, data.mlm_probability_to) == (0.3, 0.15)
    # From a quarter of 32,768 rows of 128 to all, linearly: five eighths on average.
    tokens = sum(
        (p.end - p.begin) * p.config.train.batch_size * p.config.data.max_seq_length for p in phases
    )
    assert tokens == pytest.approx(15_625 * 32_768 * 128 * 5 / 8, rel=2e-3)
    rate = rates(config)
    assert rate(250) == pytest.approx(1e-2)
    assert rate(15_374) == pytest.approx(1e-3, rel=1e-3)
    assert rate(15_500) == pytest.approx(5e-4)


def test_the_academic_budget_has_the_settings_of_its_best_configuration():
    # arXiv 2104.07705, and the first command of the authors' repository.
    config = recipe("academic_24h")
    optimizer, model = config.optimizer, config.model
    assert (optimizer.peak_learning_rate, optimizer.b1, optimizer.b2, optimizer.eps) == (
        *(1e-3, 0.9, 0.98, 1e-6),
    )
    assert (optimizer.weight_decay, optimizer.max_grad_norm, optimizer.schedule) == (
        0.01,
        0,
        "linear",
    )
    assert (config.train.budget, optimizer.warmup_steps) == ("24h", 0.06 * config.train.steps)
    assert (config.train.batch_size, config.data.max_seq_length) == (4096, 128)
    assert (config.data.mlm_probability, config.data.dupe_factor) == (0.15, 10)
    sizes = (model.num_hidden_layers, model.hidden_size, model.num_attention_heads)
    assert (*sizes, model.intermediate_size) == (24, 1024, 16, 4096)
    assert (model.norm_place, model.embedding_norm, model.final_norm) == ("before", True, True)
    assert (model.hidden_dropout_prob, model.attention_probs_dropout_prob) == (0.1, 0.1)


def test_the_crammed_model_has_the_settings_of_the_last_files_of_its_authors():
    # crammed-bert.yaml, bert-o4.yaml and optim/adam.yaml of the repository of arXiv 2212.14034.
    config = recipe("crammed")
    model, optimizer = config.model, config.optimizer
    assert (model.num_hidden_layers, model.hidden_size, model.num_attention_heads) == (16, 768, 12)
    # 3,072 numbers, of which one half is multiplied by the gelu of the other.
    assert (model.feed_forward, model.intermediate_size) == ("gated", 3072 // 2)
    assert (model.vocab_size, model.layer_norm_eps) == (32_768, 1e-12)
    assert set(model.biases) == {"norm", "pooler"}
    assert (model.mlm_transform, model.mlm_tied, model.hidden_dropout_prob) == (False, True, 0)
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.98, 1e-12)
    assert (optimizer.weight_decay, optimizer.max_grad_norm) == (0.01, 0.5)
    assert config.data.mlm_probability == 0.25
    assert config.train.max_batch_size == 8192
    steps, rate = config.train.steps, rates(config)
    assert phases_of(config)[0].config.train.batch_size_steps == pytest.approx(
        0.6 * steps, rel=1e-3
    )
    # The triangle of schedulers.py: from a quarter of 1e-3 to all at three quarters, then to 0.
    for share, expected in [(0, 2.5e-4), (0.375, 6.25e-4), (0.75, 1e-3), (0.875, 5e-4)]:
        assert rate(round(share * steps)) == pytest.approx(expected, rel=1e-3)


def test_the_chinese_model_has_the_settings_of_its_table():
    # arXiv 1906.08101, and the table of the authors' repository.
    config = recipe("chinese_base")
    found = [
        (p.end - p.begin, p.config.train.batch_size, p.config.data.max_seq_length)
        for p in phases_of(config)
    ]
    assert found == [(100_000, 2560, 128), (100_000, 384, 512)]
    assert (config.optimizer.algorithm, config.optimizer.peak_learning_rate) == ("lamb", 1e-4)
    assert (config.data.masking, config.data.word_segmenter) == ("whole_word", "jieba")
    assert config.model == family("bert", vocab_size=21_128, dtype="bfloat16")


def test_a_domain_is_learned_in_the_steps_of_its_paper_from_any_model():
    # arXiv 2004.10964, and ADAPTIVE_PRETRAINING.md of the authors' repository.
    config = recipe("domain")
    assert config.model_from_init
    assert (config.train.steps, config.train.batch_size) == (12_500, 2048)
    assert config.optimizer.peak_learning_rate == 5e-4
    assert config.optimizer.warmup_steps == 0.06 * config.train.steps


@pytest.mark.parametrize("name", RECIPES)
def test_a_cut_recipe_keeps_its_phases_and_folders(name):
    whole, small = load_config(name), cut(name)
    assert len(small.phases) == len(whole.phases)
    folders = [[c.data.prepared_dir for c in configs_to_prepare(each)] for each in (whole, small)]
    assert folders[0] == folders[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES - {"domain"}))
def test_the_step_of_each_phase_is_traced_at_its_full_size(name):
    for phase in phases_of(recipe(name)):
        config = phase.config.replace(mesh={"data": 1})
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        objective = pretraining(config, abstract_vocabulary(config), phase)
        state = steps.abstract_state(config, mesh, objective)
        new_state, metrics = jax.eval_shape(
            lambda state, batch, config=config, objective=objective: steps.train_step(
                config, state, batch, objective
            ),
            state,
            abstract_batch(config, mesh),
        )
        assert jax.tree.structure(new_state) == jax.tree.structure(state)
        assert metrics["mlm_loss"].shape == ()
