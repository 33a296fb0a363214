"""A generator and a discriminator of a few numbers, with parameters and batches."""

import dataclasses

import jax
import numpy as np

from bertjax.config import ReplacedConfig, family
from bertjax.training.pretraining import pretraining
from tests.factory import SMALL_MODEL, random_batch, small_config, unrepeated
from tests.training.distillation.models import drawn

MASK = 4
MODEL = dataclasses.replace(SMALL_MODEL, num_attention_heads=4, heads=("rtd",), mlm_act="gelu")

RELATIVE = family(
    "deberta-v2",
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=16,
    relative_positions=8,
    relative_projections="shared",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.1,
    heads=("rtd",),
)
"""A DeBERTa: relative positions instead of a table of positions, and no token types."""


def detection_config(model=MODEL, *, generator_size=0.5, generator="tied", **changes):
    """A configuration with a generator of two heads where the model has four."""
    config = small_config()
    replaced = ReplacedConfig(generator=generator, generator_size=generator_size)
    data = dataclasses.replace(config.data, sentence_objective="none")
    config = dataclasses.replace(config, model=model, data=data, replaced=replaced)
    return config.replace(**changes)


def detection_batch(rows=8, seed=0):
    """Rows of different lengths with masked words, each at a position of its own."""
    batch = unrepeated(random_batch(np.random.default_rng(seed), rows))
    del batch["next_sentence_labels"]
    for row, positions in enumerate(batch["masked_lm_positions"]):
        batch["input_ids"][row, positions[batch["masked_lm_weights"][row] > 0]] = MASK
    return batch


def prepared_batch(config, rows=8, seed=0):
    """A batch with keys for its samples."""
    return pretraining(config).prepare(detection_batch(rows, seed), jax.random.key(seed))


def random_params(config, seed=0):
    """Parameters of both networks that differ everywhere, also where new ones are 0 or 1."""
    return drawn(jax.eval_shape(lambda: pretraining(config).init(jax.random.key(0))), seed)
