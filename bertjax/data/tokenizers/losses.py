"""What of a text a tokenizer cannot represent: unknown characters, and marks that it removes."""

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Losses(NamedTuple):
    """Counts of characters of some texts; white space is not counted."""

    unknown: int
    """Characters in an unknown token, and those that leave no token at all."""
    stripped: int
    """Characters that lose a mark, as é, or are one, as the vowel signs of Hindi."""


class CharacterCounts(dict[str, int]):
    """Counts by character, each computed when it is first asked for."""

    def __init__(self, count_of: Callable[[str], int]):
        self._count_of = count_of

    def __missing__(self, character: str) -> int:
        count = self[character] = self._count_of(character)
        return count

    def total(self, text: str) -> int:
        """Return the sum over the characters of `text`."""
        return sum(map(self.__getitem__, text))


def loses_mark(character: str) -> bool:
    """Return whether BERT's way of stripping accents changes or removes a character."""
    decomposed = unicodedata.normalize("NFD", character)
    return any(unicodedata.category(part) == "Mn" for part in decomposed)


def texts_with(token: int, tokens: np.ndarray, offsets: np.ndarray) -> list[int]:
    """Return the numbers of the texts that have `token`, ascending.

    Text `i` has the tokens `tokens[offsets[i]:offsets[i + 1]]`.
    """
    positions = np.flatnonzero(tokens == token)
    # Of texts without tokens, which have the same offset, the last one is the text that is meant.
    return np.unique(np.searchsorted(offsets, positions, side="right") - 1).tolist()
