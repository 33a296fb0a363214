"""Choosing what a row is to predict, for many rows at once."""

import numpy as np

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stay as they are


def mask_tokens(
    input_ids: np.ndarray,
    maskable: np.ndarray,
    *,
    mask_id: int,
    random_ids: np.ndarray,
    mlm_probability: float,
    max_predictions: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Masked-word features of rows, as in section 3.1 of arXiv 1810.04805.

    Of each row's tokens where `maskable` (bool `[n, L]`) holds, `mlm_probability` are chosen, rounded,
    one at least and `max_predictions` at most; 80 % of them become `mask_id`, 10 % one of
    `random_ids`, 10 % stay. Gives `input_ids` `[n, L]` changed so, and `masked_lm_positions`
    (ascending), `masked_lm_ids`, `masked_lm_weights` `[n, max_predictions]`, 0 where unused.
    """
    rows, length = input_ids.shape
    slots = min(max_predictions, length)
    available = maskable.sum(axis=1)
    wanted = np.minimum(np.clip(np.rint(mlm_probability * available), 1, max_predictions), available)

    lots = np.where(maskable, rng.random((rows, length), np.float32), np.float32(2))
    drawn = np.argpartition(lots, slots - 1, axis=1)[:, :slots]
    drawn = np.take_along_axis(drawn, np.argsort(np.take_along_axis(lots, drawn, 1), axis=1, kind="stable"), 1)
    used = np.arange(slots)[None, :] < wanted[:, None]
    positions = np.sort(np.where(used, drawn, length), axis=1)
    positions = np.where(used, positions, 0)

    labels = np.where(used, np.take_along_axis(input_ids, positions, 1), 0)
    fate = rng.random((rows, slots), np.float32)
    replaced = np.where(fate < MASKED, mask_id, labels)
    strangers = random_ids[rng.integers(0, len(random_ids), (rows, slots))]
    replaced = np.where((fate >= MASKED) & (fate < MASKED + RANDOM), strangers, replaced)
    masked = input_ids.copy()
    row = np.broadcast_to(np.arange(rows)[:, None], used.shape)
    masked[row[used], positions[used]] = replaced[used]

    unused = [(0, 0), (0, max_predictions - slots)]
    return {
        "input_ids": masked,
        "masked_lm_positions": np.pad(positions, unused).astype(np.int32),
        "masked_lm_ids": np.pad(labels, unused).astype(np.int32),
        "masked_lm_weights": np.pad(used, unused).astype(np.float32),
    }
