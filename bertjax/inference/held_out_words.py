"""The words of a text, and which of them are masked: the same for every tokenizer.

A word is what stands between white space. In scripts without spaces between words each character
is one, with the marks that belong to it (`data.tokenizers.word_starts`). A longer stretch than
`LONGEST_WORD` characters, such as an address, is cut into words of that length.
"""

import hashlib
import itertools
import re
import unicodedata

import numpy as np

from bertjax.data.tokenizers.word_starts import begins_unspaced

# BERT's share (arXiv 1810.04805, section 3.1), of words and not of tokens.
MASKED_SHARE = 0.15
"""Share of a text's words that are masked."""
LONGEST_WORD = 32
"""The most characters of a word."""

_STRETCH = re.compile(r"\S+")
# The constants of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
# generators", figure 15, with the variant of Stafford).
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def word_spans(text: str) -> np.ndarray:
    """Return the (begin, end) of each word in characters; int64 [words, 2].

    Words do not overlap, and have all characters but white space.
    """
    spans: list[tuple[int, int]] = []
    for stretch in _STRETCH.finditer(text):
        begin, end = stretch.span()
        if text[begin:end].isascii():
            spans += _cut(begin, end)
        else:
            spans += _words_of_stretch(text, begin, end)
    return np.array(spans, np.int64).reshape(-1, 2)


def masked_words(text: str, words: int) -> np.ndarray:
    """Return which of the words of a text are masked; bool [words].

    The hash of the text gives each word a number; those with the lowest numbers are masked,
    `MASKED_SHARE` of the words, but at least one. So which they are depends on the text alone.
    """
    masked = np.zeros(words, bool)
    if words:
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        numbers = _hashes(int.from_bytes(digest, "little"), words)
        count = max(1, round(MASKED_SHARE * words))
        masked[np.argsort(numbers, kind="stable")[:count]] = True
    return masked


def _words_of_stretch(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Return the words between white space where some characters may be words by themselves."""
    spans = []
    start, is_alone = begin, False
    for position in range(begin, end):
        character = text[position]
        if begins_unspaced(character):
            begins = True
        else:
            # Only a mark goes on with such a character.
            begins = is_alone and not unicodedata.category(character).startswith("M")
        if begins and position > start:
            spans += _cut(start, position)
            start = position
        if begins or position == start:
            is_alone = begins_unspaced(character)
    return spans + _cut(start, end)


def _cut(begin: int, end: int) -> list[tuple[int, int]]:
    cuts = [*range(begin, end, LONGEST_WORD), end]
    return list(itertools.pairwise(cuts))


def _hashes(seed: int, count: int) -> np.ndarray:
    """Return the first numbers of splitmix64; uint64 [count]."""
    # Overflow is meant: arithmetic is modulo 2**64.
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))
