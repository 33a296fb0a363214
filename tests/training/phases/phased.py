"""Runs with phases on batches in memory."""

import itertools

import numpy as np

from bertjax.config.phases.resolution import phases_of
from bertjax.masking.selection import Vocabulary
from bertjax.training.batch_source import BatchSource
from tests.factory import random_batch, small_config

FOUR = (
    "steps=3 data.mlm_probability=0.3 data.mlm_probability_to=0.15",
    "steps=3 data.max_seq_length=24 model.rotary_base=160000",
    "steps=2 train.batch_size=16 optimizer.weight_decay=0.1 data.mlm_probability=0.1",
    "optimizer.schedule=sqrt",
)
"""Mask rate, length and base, batch, decay: phases that end at steps 3, 6, 8 and 11."""
TWO = (
    "steps=3 data.mlm_probability=0.3 data.mlm_probability_to=0.15",
    "data.max_seq_length=24 model.rotary_base=160000 train.batch_size=16 optimizer.schedule=sqrt",
)
"""Phases that end at steps 3 and 5, for the tests of every day."""
OBJECTIVES = (
    "steps=2 data.causal_share=1.0 data.max_predictions_per_seq=15",
    "steps=2 data.causal_share=0.25 model.mlm_shifted=True model.embedding_noise=5",
    "data.causal_share=0 data.objective=diffusion data.mask_shares=1,0,0"
    " data.max_predictions_per_seq=16 model.mlm_shifted=False",
)
"""Next tokens alone, a quarter of the rows with noise, diffusion: phases that end at 2, 4 and 6."""
VOCABULARY = Vocabulary(mask_id=4, special_ids=(0, 1, 2, 3, 4), size=64)
LEFT_OUT = (
    "masked_lm_positions",
    "masked_lm_ids",
    "masked_lm_weights",
    "next_sentence_labels",
)
"""Arrays of a batch that the step makes itself, or that an objective without pairs has not."""


def phased_config(phases=TWO, steps=5, **changes):
    model = {"positions": "rotary", "num_hidden_layers": 1, "max_position_embeddings": 24}
    train = {
        "steps": steps,
        "save_every_steps": 50,
        "keep_checkpoints": 1,
        "keep_steps": (0, 3),
        "eval_every_steps": 100,
    }
    return small_config(
        phases=phases,
        data={
            "dynamic_masking": True, "masking": "token", "max_seq_length": 16,
            "max_predictions_per_seq": 8, "sentence_objective": "none",
        },
        model=model | {"hidden_dropout_prob": 0.0 if steps == 5 else 0.1, "heads": ("mlm",)},
        optimizer={"schedule": "constant", "warmup_steps": 2},
        train=train | changes.pop("train", {}),
        **{"mesh": {"data": -1}} | changes,
    )  # fmt: skip


def phased_source(config, after=lambda step: None):
    """Batches that depend on the step alone; `after` is called when one is asked for."""
    sources = []
    for phase in phases_of(config):

        def batches(start, rows, own=phase.config):
            for step in itertools.count(start):
                after(step)
                batch = random_batch(
                    np.random.default_rng(step), own.train.batch_size, own.data.max_seq_length, 8
                )
                yield {name: x[rows] for name, x in batch.items() if name not in LEFT_OUT}

        sources.append(BatchSource(train=batches, vocabulary=VOCABULARY))
    return BatchSource(
        train=sources[0].train,
        vocabulary=VOCABULARY,
        of_phases=tuple(sources) if config.phases else (),
    )
