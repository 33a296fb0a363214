"""Encoding of sentences and pairs of sentences as rows of ids."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.tasks.examples import TextExample


class EncodedTexts(NamedTuple):
    """Rows of ids, one for each text or pair of texts."""

    ids: np.ndarray
    offsets: np.ndarray
    second: np.ndarray
    """The three arrays are those of `bertjax.tasks.task.EncodedExamples`."""
    truncated: int
    """Number of rows that were cut because they were too long."""


def encode_pairs(
    tokenizer: Tokenizer, examples: Sequence[TextExample], max_seq_length: int
) -> EncodedTexts:
    """Return a row for each text or pair of texts, by the tokenizer's layout.

    With BERT's layout that is [CLS] a [SEP], or [CLS] a [SEP] b [SEP].

    A pair that is too long is cut as by `_truncate_seq_pair` of BERT's run_classifier.py: the
    longer text loses its last token, again and again until the pair fits. If both are equally long,
    the second text loses its last token. Raises `UserError` if `max_seq_length` leaves no space for
    a text beside the special tokens.
    """
    is_pair = np.array([example.pair is not None for example in examples], bool)
    a_ids, a_offsets = tokenizer.encode_batch([example.text for example in examples])
    b_ids, b_offsets = tokenizer.encode_batch([example.pair or "" for example in examples])
    room = max_seq_length - tokenizer.layout.specials(is_pair)
    check(
        (room > 0).all(),
        where="max_seq_length",
        found=max_seq_length,
        expected="room for the special tokens",
    )
    a, b = np.diff(a_offsets), np.diff(b_offsets)
    # Closed form of the loop in run_classifier.py. The longer text loses tokens until both are
    # equally long, and then both lose tokens in turn. A text that is longer than half of the room
    # therefore keeps half of it or more (rounded up for the first text).
    half = np.where(is_pair, -(-room // 2), room)
    kept_a = np.minimum(a, np.maximum(room - b, half))
    kept_b = np.minimum(b, room - kept_a)
    first = Texts(a_ids, a_offsets[:-1], kept_a)
    rows = tokenizer.layout.rows(first, Texts(b_ids, b_offsets[:-1], kept_b), is_pair)
    truncated = int(((kept_a < a) | (kept_b < b)).sum())
    return EncodedTexts(*rows, truncated)
