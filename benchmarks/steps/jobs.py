"""The models and batches that `benchmarks/step.py` times."""

import math
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {  # layers, hidden size; mini and small are those of arXiv 1908.08962
    "mini": (4, 256),
    "small": (4, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
# Feed-forward width over hidden size, as in each family's base model. NeoBERT's is a multiple of 8.
FEED_FORWARD = {"bert": 4, "modernbert": 1.5, "deberta-v2": 4, "neobert": 8 / 3}
FAMILIES = [name for name in FEED_FORWARD if name != "bert"]
PREDICTIONS = {128: 20, 512: 76}  # by length; of others 15 %
VOCAB_SIZE = 30_522  # of every family: with larger ones the head would be most of the time


def job_of(
    family: str, size: str, length: int, batch_size: int, dtype: str, batch: Path
) -> dict[str, Any]:
    """Return what a worker needs to know of a step, and write the batch to the file `batch`."""
    layers, width = SIZES[size]
    predictions = PREDICTIONS.get(length, -(-length * 3 // 20))
    np.savez(batch, **full_batch(batch_size, length, predictions))
    return {
        "kind": "training",
        "family": family,
        "model": {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "intermediate_size": 8 * math.ceil(FEED_FORWARD[family] * width / 8),
        },
        "length": length,
        "predictions": predictions,
        "batch_size": batch_size,
        "dtype": dtype,
        "batch": str(batch),
    }


def full_batch(rows: int, length: int, predictions: int) -> dict[str, np.ndarray]:
    """Return a batch of random tokens without padding, with two segments and masks in each row.

    `labels` are the masked tokens at their positions, and -100 elsewhere, as PyTorch has them.
    """
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)
    positions = np.sort(shuffled[:, :predictions], axis=1)
    masked = rng.integers(1000, VOCAB_SIZE, (rows, predictions))
    labels = np.full((rows, length), -100)
    np.put_along_axis(labels, positions, masked, axis=1)
    return {
        "input_ids": rng.integers(1000, VOCAB_SIZE, (rows, length)),
        "input_mask": np.ones((rows, length), np.int64),
        "segment_ids": np.tile(np.arange(length) >= length // 2, (rows, 1)).astype(np.int64),
        "masked_lm_positions": positions,
        "masked_lm_ids": masked,
        "masked_lm_weights": np.ones((rows, predictions), np.float32),
        "next_sentence_labels": rng.integers(0, 2, rows),
        "labels": labels,
    }
