"""What of a text a tokenizer cannot represent: unknown characters, and marks that it removes."""

import unicodedata
from collections.abc import Callable, Container
from typing import Literal, NamedTuple

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


def loses_mark(
    text: str, form: Literal["NFD", "NFKD"] = "NFD", marks: Container[str] = ("Mn",)
) -> bool:
    """Return whether stripping accents changes or removes a character of a text.

    `form` is the normal form in which accents are found, and `marks` are the categories of Unicode
    that are removed. The defaults are those of BERT.
    """
    decomposed = unicodedata.normalize(form, text)
    return any(unicodedata.category(part) in marks for part in decomposed)


def count_by_text(marked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the number of marked tokens of each text; int64 [texts].

    Text `i` has the tokens `offsets[i]` to `offsets[i + 1] - 1`; `marked` is bool [tokens].
    """
    until = np.concatenate([[0], np.cumsum(marked, dtype=np.int64)])
    return until[offsets[1:]] - until[offsets[:-1]]
