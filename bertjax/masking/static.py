"""Masks that are made once, in numpy, while shards are written or where they are read again."""

from collections.abc import Callable

import numpy as np

from bertjax.config import DataConfig
from bertjax.masking import selection as masking
from bertjax.masking.selection import Library, Vocabulary
from bertjax.types import Batch


def mask_rows(
    batch: Batch, config: DataConfig, vocabulary: Vocabulary, rng: np.random.Generator
) -> Batch:
    """`batch` with the masked-word features of `bertjax.masking.selection.mask_tokens`; it has
    `word_starts`, bool.
    """
    return batch | masking.mask_tokens(
        NUMPY,
        batch["input_ids"],
        batch["input_mask"],
        batch["word_starts"],
        vocabulary=vocabulary,
        masking=config.masking,
        mlm_probability=config.mlm_probability,
        max_predictions=config.max_predictions_per_seq,
        uniform=_uniform(rng),
    )


def unmask(batch: Batch) -> Batch:
    """The rows as they were before they were masked, without the masked-word features."""
    kept = {name: values for name, values in batch.items() if not name.startswith("masked_lm")}
    used = batch["masked_lm_weights"] > 0
    ids = batch["input_ids"].copy()
    row = np.broadcast_to(np.arange(len(ids))[:, None], used.shape)
    ids[row[used], batch["masked_lm_positions"][used]] = batch["masked_lm_ids"][used]
    return kept | {"input_ids": ids}


def greedy(sizes: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`bertjax.masking.selection.Greedy`, a place of the order at a time: few are looked at before
    all rows are full.
    """
    taken = np.zeros(sizes.shape, bool)
    left = wanted[:, 0].copy()
    row = np.arange(len(sizes))
    for column in np.ascontiguousarray(order.T):
        size = sizes[row, column]
        fits = (size <= left) & (size > 0)
        taken[row, column] = fits
        left -= size * fits
        if not left.any():
            break
    return taken


def _put(array: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    array = array.copy()
    np.put_along_axis(array, columns, values, 1)
    return array


NUMPY = Library(np, _put, greedy)


def _uniform(rng: np.random.Generator) -> Callable[[tuple[int, ...]], np.ndarray]:
    return lambda shape: rng.random(shape, np.float32)
