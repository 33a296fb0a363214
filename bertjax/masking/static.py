"""Static masks, made once with NumPy while shards are written; and their removal."""

import numpy as np

from bertjax.config import DataConfig
from bertjax.masking.selection import ArrayLibrary, Uniform, Vocabulary, mask_tokens
from bertjax.types import Batch


def mask_rows(
    batch: Batch, config: DataConfig, vocabulary: Vocabulary, rng: np.random.Generator
) -> Batch:
    """Return `batch` with the masked-word features of `mask_tokens`.

    The batch has `input_ids` and `input_mask`, int32, and `word_starts`, bool, all [B, L]. The
    result still has all three.
    """
    return batch | mask_tokens(
        NUMPY,
        batch["input_ids"],
        batch["input_mask"],
        batch["word_starts"],
        vocabulary=vocabulary,
        masking=config.masking,
        mlm_probability=config.mlm_probability,
        max_predictions=config.max_predictions_per_seq,
        shares=config.mask_shares,
        uniform=_uniform(rng),
    )


def unmask(batch: Batch) -> Batch:
    """Return the rows as they were before masking, without the masked-word features."""
    kept = {name: values for name, values in batch.items() if not name.startswith("masked_lm")}
    # Unused slots name position 0 and the id 0, which must not be written.
    used = batch["masked_lm_weights"] > 0
    ids = batch["input_ids"].copy()
    row = np.broadcast_to(np.arange(len(ids))[:, None], used.shape)
    ids[row[used], batch["masked_lm_positions"][used]] = batch["masked_lm_ids"][used]
    return kept | {"input_ids": ids}


def greedy(sizes: np.ndarray, order: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """`bertjax.masking.selection.GreedySelection` as a loop over the positions of the order.

    Each iteration handles one position of all rows. Few iterations are needed until every budget is
    used up, so in NumPy this is faster than `dynamic.greedy`, which makes passes over whole rows.
    """
    taken = np.zeros(sizes.shape, bool)
    # A copy, since it is counted down.
    left = budget[:, 0].copy()
    row = np.arange(len(sizes))
    # A contiguous copy, because each iteration reads one column of `order` for all rows.
    for column in np.ascontiguousarray(order.T):
        size = sizes[row, column]
        fits = (size <= left) & (size > 0)
        taken[row, column] = fits
        left -= size * fits
        if not left.any():
            break
    return taken


def _put(array: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    # As JAX's `put`, which cannot write to the array that it is given.
    array = array.copy()
    np.put_along_axis(array, columns, values, 1)
    return array


NUMPY = ArrayLibrary(np, _put, greedy)


def _uniform(rng: np.random.Generator) -> Uniform:
    def draw(shape: tuple[int, ...]) -> np.ndarray:
        # float32, as `Uniform` says: what follows then rounds as it does in JAX.
        return rng.random(shape, np.float32)

    return draw
