"""Division of words that are too long to be masked whole."""

import numpy as np

from bertjax.masking.selection import Vocabulary, is_special

# Of the tokens of English and German text under WordPiece, 1 in 1,000 is in a longer word with a
# vocabulary of 8,000 entries, and 1 in 500 with 2,000. A row of 128 tokens has 19 predictions: of
# these, words of one size fill 74 % or more up to this size, and 53 % at a size of 10.
MAX_WORD_PIECES = 8
"""Pieces of the longest word that is masked as a whole."""


def divide_long_words(
    word_starts: np.ndarray, input_ids: np.ndarray, vocabulary: Vocabulary
) -> np.ndarray:
    """Return `word_starts`, bool [B, L], with True at each piece of a word that is too long.

    Such a word is a hash, a DNA sequence, or a clause in a script without spaces. A word is masked
    as a whole or not at all, and only a few tokens of a row are: a word of ten pieces may leave
    half of these unused, and one of twenty is never chosen. No word crosses a special token.
    """
    limit = vocabulary.max_word_pieces
    if not limit or not word_starts.size:
        return word_starts
    special = is_special(input_ids, vocabulary)
    bounds = word_starts | special
    bounds[:, 0] = True
    bounds[:, 1:] |= special[:, :-1]
    begins = np.flatnonzero(bounds)
    sizes = np.diff(begins, append=bounds.size)
    is_long = sizes > limit
    if not is_long.any():
        return word_starts
    return word_starts | np.repeat(is_long, sizes).reshape(word_starts.shape)
