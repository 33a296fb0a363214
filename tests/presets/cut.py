"""Recipes at a cut size: all that they do, with a model of a few numbers, short rows, few steps."""

import math
import shlex

from bertjax.config import load_config, preset_names
from bertjax.config.phases.resolution import phases_of

RECIPES = tuple(name for name in preset_names() if name.startswith("recipes/"))
LENGTHS = (32, 48, 64)
"""Lengths of rows, in the order of those that a recipe has."""
STEPS = 4
"""Of each phase."""
ROWS = (16, 32)
"""Rows of a batch: a phase with another batch than the one before has the other number."""
WORDS = {
    "steps",
    "tokens",
    "data.max_seq_length",
    "data.max_predictions_per_seq",
    "train.batch_size",
}


def cut(name):
    """The configuration of a recipe with other sizes, and the same kinds of all else."""
    config = load_config(name)
    model = config.model
    phases = [phase.config for phase in phases_of(config)]
    lengths = _numbered(phase.data.max_seq_length for phase in phases)
    rows = _numbered(phase.train.batch_size for phase in phases)

    def sizes(phase):
        length = LENGTHS[lengths[phase.data.max_seq_length]]
        predictions = math.ceil(phase.data.mlm_probability * length)
        if phase.data.causal_share:
            predictions = length - 1
        return {
            "steps": STEPS,
            "data.max_seq_length": length,
            "data.max_predictions_per_seq": predictions,
            "train.batch_size": ROWS[rows[phase.train.batch_size] % 2],
        }

    texts = []
    for text, phase in zip(config.phases, phases, strict=False):
        kept = [word for word in shlex.split(text) if word.partition("=")[0] not in WORDS]
        texts.append(
            " ".join([*(f"{field}={size}" for field, size in sizes(phase).items()), *kept])
        )
    first = sizes(phases[0])
    # What a ramp has in a batch of the first phase is a power of two.
    growth = config.train.max_batch_size // config.train.batch_size
    steps = STEPS * len(phases)
    return config.replace(
        phases=tuple(texts),
        tokenizer={"vocab_size": 300},
        data={
            "max_seq_length": first["data.max_seq_length"],
            "max_predictions_per_seq": first["data.max_predictions_per_seq"],
            "validation_fraction": 0.2,
            "dupe_factor": 1,
            "num_shards": 1,
            "workers": 1,
        },
        model={
            "vocab_size": 384,
            "hidden_size": 32,
            # A generator of a quarter of them has one.
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "embedding_size": 16 if model.embedding_size else 0,
            # Two patterns of global and local layers would be 6.
            "num_hidden_layers": 4,
            "max_position_embeddings": LENGTHS[-1],
            "local_attention": 16 if model.local_attention else 0,
        },
        optimizer={"warmup_steps": 1, "warmup_tokens": 0},
        train={
            # What a clock decides is not the same in two runs.
            "budget": "",
            "steps": steps,
            "batch_size": first["train.batch_size"],
            "max_batch_size": first["train.batch_size"] * growth,
            # Half of the first phase.
            "batch_size_tokens": first["train.batch_size"] * LENGTHS[0] * STEPS // 2 * (growth > 0),
            "log_every_steps": 1,
            "eval_every_steps": STEPS,
            "save_every_steps": 1,
            "keep_every_steps": 1,
        },
    )


def _numbered(values):
    """The place of each value among the different ones, in their order."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}
