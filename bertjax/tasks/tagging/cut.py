"""Division of long sentences into rows of whole words."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bertjax.tasks.examples import TaggedExample


class Cut(NamedTuple):
    """Sentences cut into rows."""

    piece_offsets: np.ndarray
    """int64 [words + 1], index of the first piece of each word among the pieces of all words."""
    first_words: np.ndarray
    """int64 [rows + 1], number of the first word in each row; the last is the number of words."""
    example: np.ndarray
    """int64 [rows], number of the sentence in each row."""


def cut_sentences(sizes: np.ndarray, examples: Sequence[TaggedExample], room: int) -> Cut:
    """Divide the sentences into rows of whole words with up to `room` pieces.

    `sizes` has the number of pieces of each word.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    lengths = [len(example.words) for example in examples]
    sentence_begins = np.cumsum([0, *lengths]).tolist()
    first_words, example_of_row = [], []
    for index, (begin, end) in enumerate(pairwise(sentence_begins)):
        # A word has at most `room` pieces, so each row takes one word or more.
        while offsets[end] - offsets[begin] > room:
            first_words.append(begin)
            example_of_row.append(index)
            begin = int(np.searchsorted(offsets, offsets[begin] + room, "right")) - 1
        first_words.append(begin)
        example_of_row.append(index)
    return Cut(
        offsets,
        np.array([*first_words, sentence_begins[-1]], np.int64),
        np.array(example_of_row, np.int64),
    )
