"""Small configurations and random batches that many tests start from."""

import dataclasses
import json

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig

RUN_FOLDER = {
    "config.json",
    "log.txt",
    "metrics.jsonl",
    "tensorboard",
    "tokenizer",
    "checkpoints",
    "report.html",
}

SMALL_MODEL = ModelConfig(
    vocab_size=64,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def small_config(**changes):
    """A configuration whose steps take milliseconds.

    `changes` replace fields by section, for example `train={"steps": 3}`.
    """
    base = Config(
        model=SMALL_MODEL,
        data=DataConfig(max_seq_length=16, max_predictions_per_seq=4),
        optimizer=OptimizerConfig(warmup_steps=2, peak_learning_rate=1e-2),
        train=TrainConfig(
            steps=6,
            batch_size=8,
            log_every_steps=2,
            eval_every_steps=3,
            save_every_steps=3,
            keep_checkpoints=2,
        ),
        mesh=MeshConfig(data=1),
    )
    sections = {}
    for name, value in changes.items():
        if isinstance(value, dict):
            value = dataclasses.replace(getattr(base, name), **value)
        sections[name] = value
    return dataclasses.replace(base, **sections)


def random_batch(rng, rows, length=16, predictions=4, vocab_size=64):
    """Rows of random ids with different lengths and numbers of masked tokens; no row is empty."""
    real = rng.integers(4, length + 1, rows)
    mask = np.arange(length)[None, :] < real[:, None]
    split = (real * rng.random(rows)).astype(np.int64)
    masked = rng.integers(0, predictions + 1, rows)
    masked[0] = predictions
    weights = np.arange(predictions)[None, :] < masked[:, None]
    positions = np.sort(rng.integers(0, real[:, None], (rows, predictions)), axis=1)
    return {
        "input_ids": (rng.integers(5, vocab_size, (rows, length)) * mask).astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "segment_ids": ((np.arange(length)[None, :] >= split[:, None]) * mask).astype(np.int32),
        "masked_lm_positions": (positions * weights).astype(np.int32),
        "masked_lm_ids": (rng.integers(5, vocab_size, (rows, predictions)) * weights).astype(
            np.int32
        ),
        "masked_lm_weights": weights.astype(np.float32),
        "next_sentence_labels": rng.integers(0, 2, (rows, 1)).astype(np.int32),
    }


def model_in_memory(folder, model_config, params, tokenizer):
    """A loaded model of these parameters, its tokenizer and record in `folder`; there is no checkpoint."""
    from bertjax.training.saved_model import TrainedModel

    folder = epath.Path(folder)
    if not (folder / "tokenizer").exists():
        tokenizer.save(folder / "tokenizer")
    # What a checkpoint says of its tokenizer, which is compared with the one in the folder.
    (folder / "meta").mkdir(exist_ok=True)
    record = {"tokenizer_fingerprint": tokenizer.fingerprint}
    (folder / "meta" / "metadata").write_text(json.dumps(record))
    return TrainedModel(small_config(model=model_config), folder, folder, params)


def unrepeated(batch):
    """The reference has a label a position: of masks on the same one, the first counts."""
    for positions, weights in zip(
        batch["masked_lm_positions"], batch["masked_lm_weights"], strict=True
    ):
        seen = set()
        for i, position in enumerate(positions):
            if position in seen:
                weights[i] = 0
            elif weights[i]:
                seen.add(position)
    return batch
