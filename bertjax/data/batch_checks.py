"""Checks of batches before they are trained on."""

from collections.abc import Mapping

import numpy as np

from bertjax.config import Config
from bertjax.errors import UserError

# Bounds of the warnings of `inspect_batch`. They are wide, so that a warning points to a mistake in
# the data and not to chance. If labels 0 and 1 are equally likely, the share of one label among 16
# rows is outside 10 to 90 % only once in 2,000 batches.
MASK_RATE_TOLERANCE = 0.5
MIN_LABELS = 16
MIN_LABEL_SHARE, MAX_LABEL_SHARE = 0.1, 0.9
MAX_DUPLICATE_SHARE = 0.2


def check_ids(batch: Mapping[str, np.ndarray], vocab_size: int) -> None:
    """Raise `UserError` for an id outside 0..`vocab_size`-1 in `input_ids` or `masked_lm_ids`.

    Under jit such an id raises no error: its embedding silently becomes NaN, or that of another id.
    """
    # Rows for dynamic masks have no `masked_lm_ids`.
    no_ids = np.zeros((0, 0), np.int32)
    for name in ("input_ids", "masked_lm_ids"):
        ids = batch.get(name, no_ids)
        # `initial`, because numpy has no minimum of an empty array.
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocab_size:
            row, column = np.argwhere((ids < 0) | (ids >= vocab_size))[0]
            raise UserError(
                f"{name}, row {row}: found id {ids[row, column]}, "
                f"expected 0 to {vocab_size - 1} (model.vocab_size)"
            )


def inspect_batch(batch: Mapping[str, np.ndarray], config: Config) -> list[str]:
    """List warnings about a batch: mask rate, label balance, duplicate rows, empty rows.

    Each entry is one line for the log. The list is empty if nothing looks wrong.
    """
    warnings = []
    if "masked_lm_weights" in batch:
        expected = config.data.mlm_probability
        # Special tokens count here and are never predicted, so a fair rate is a little below
        # `expected`; the tolerance allows for it.
        tokens = batch["input_mask"].sum()
        rate = batch["masked_lm_weights"].sum() / max(tokens, 1)
        lowest, highest = (1 - MASK_RATE_TOLERANCE) * expected, (1 + MASK_RATE_TOLERANCE) * expected
        if not lowest < rate < highest:
            warnings.append(
                f"{rate:.1%} of the tokens are to be predicted, "
                f"data.mlm_probability says {expected:.1%}"
            )
    labels = batch.get("next_sentence_labels", np.zeros((0, 1), np.int32))
    if "cls_weights" in batch:
        # Slots of a packed row without an input have the label 0, which is no answer.
        labels = labels[batch["cls_weights"] > 0]
    if labels.size >= MIN_LABELS and not MIN_LABEL_SHARE <= labels.mean() <= MAX_LABEL_SHARE:
        share = max(labels.mean(), 1 - labels.mean())
        warnings.append(f"{share:.0%} of the rows have the same sentence label")
    distinct = len(np.unique(batch["input_ids"], axis=0))
    duplicate_share = 1 - distinct / len(batch["input_ids"])
    if duplicate_share > MAX_DUPLICATE_SHARE:
        warnings.append(f"{duplicate_share:.0%} of the rows are duplicates")
    empty = int((batch["input_mask"].sum(axis=1) == 0).sum())
    if empty:
        warnings.append(f"{empty} rows are all padding")
    return warnings
