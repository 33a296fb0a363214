"""Rows of sources and targets: [CLS] text [SEP], cut to a length."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.tasks.task import EncodedExamples

log = logging.getLogger("bertjax")


@dataclass(frozen=True)
class EncodedPairs(EncodedExamples):
    """Sources as rows; `targets` may have `target_ids`, int32 [items, T], padded."""

    tokenizer: Tokenizer = field(kw_only=True)
    """The tokenizer of the rows; it also decodes the predicted ids."""


def framed(
    tokenizer: Tokenizer, texts: Sequence[str], longest: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and offsets of [CLS] text [SEP] for each text, cut to `longest` ids.

    The log says how many texts were cut, and names them by `what`.
    """
    inner, begins = tokenizer.encode_batch(texts)
    lengths = np.minimum(np.diff(begins), longest - 2)
    truncated = int(np.sum(lengths < np.diff(begins)))
    if truncated:
        log.warning(
            "%s longer than %d ids, which were cut to them: %d of %d",
            what,
            longest,
            truncated,
            len(texts),
        )
    offsets = np.concatenate([[0], np.cumsum(lengths + 2)]).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    ids[ranges(offsets[:-1] + 1, offsets[1:] - 1)] = inner[
        ranges(begins[:-1], begins[:-1] + lengths)
    ]
    ids[offsets[:-1]] = tokenizer.cls_id
    ids[offsets[1:] - 1] = tokenizer.sep_id
    return ids, offsets
