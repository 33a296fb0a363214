"""A look at batches before they are trained on."""

from collections.abc import Mapping

import numpy as np

from bertjax.config import Config
from bertjax.errors import UserError


def check_ids(batch: Mapping[str, np.ndarray], vocab_size: int) -> None:
    """Raise `UserError` for an id outside 0..vocab_size-1; under jit it would become NaN in
    silence.
    """
    for name in ("input_ids", "masked_lm_ids"):
        ids = batch.get(name, np.zeros((0, 0), np.int32))
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocab_size:
            row, column = np.argwhere((ids < 0) | (ids >= vocab_size))[0]
            raise UserError(
                f"{name}, row {row}: found id {ids[row, column]}, expected 0 to {vocab_size - 1} (model.vocab_size)"
            )


def inspect_batch(batch: Mapping[str, np.ndarray], config: Config) -> list[str]:
    """What looks odd in a batch, a line each: mask rate, label spread, duplicate rows, empty rows."""
    odd = []
    real = batch["input_mask"].sum()
    expected = config.data.mlm_probability
    if "masked_lm_weights" in batch:
        rate = batch["masked_lm_weights"].sum() / max(real, 1)
        if not 0.5 * expected < rate < 1.5 * expected:
            odd.append(
                f"{rate:.1%} of the tokens are to be predicted, data.mlm_probability says {expected:.1%}"
            )
    rows = len(batch["input_ids"])
    labels = batch.get("next_sentence_labels", np.zeros((0, 1), np.int32))
    if "cls_weights" in batch:
        labels = labels[batch["cls_weights"] > 0]
    if labels.size >= 16 and not 0.1 <= labels.mean() <= 0.9:
        share = max(labels.mean(), 1 - labels.mean())
        odd.append(f"{share:.0%} of the rows have the same sentence label")
    duplicates = 1 - len(np.unique(batch["input_ids"], axis=0)) / rows
    if duplicates > 0.2:
        odd.append(f"{duplicates:.0%} of the rows are duplicates")
    empty = int((batch["input_mask"].sum(axis=1) == 0).sum())
    if empty:
        odd.append(f"{empty} rows are all padding")
    return odd
