"""What frequencies of pieces alone reach, as a level to compare with."""

import math
from collections.abc import Iterable
from itertools import islice

import numpy as np

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.inference.bits_per_byte import MaskedBits
from bertjax.inference.masked_rows import masked_text

LINES = 40_000
"""The first lines of the training text, whose pieces are counted."""


def bits_of_frequencies(
    tokenizer: Tokenizer, training: Iterable[str], texts: Iterable[str], longest: int
) -> MaskedBits:
    """Return the bits of the masked words of texts, where each piece has its frequency.

    The frequency is that among the pieces of the first lines of `training`, with each count 1
    higher, so that none is 0.
    """
    ids, _ = tokenizer.encode_batch([line.rstrip("\n") for line in islice(training, LINES)])
    counts = np.bincount(ids, minlength=tokenizer.vocab_size) + 1.0
    costs = -np.log(counts / counts.sum())
    total = MaskedBits()
    for text in texts:
        masked = masked_text(tokenizer, text, longest)
        nats = math.fsum(
            float(cost) for row in masked.rows for cost in costs[row.ids[row.positions]]
        )
        total += MaskedBits(
            nats, masked.bytes, masked.unspelled_bytes, masked.words, masked.pieces, 1
        )
    return total
