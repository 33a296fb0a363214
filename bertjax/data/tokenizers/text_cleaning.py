"""What is done to text before a SentencePiece model sees it, character by character."""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import normalizers

from bertjax.data.tokenizers.letters import Letters
from bertjax.data.tokenizers.losses import loses_mark
from bertjax.data.tokenizers.sentencepiece_normalizer import character_steps

ALBERT, LOWERCASE, STRIP_ACCENTS = "albert", "lowercase", "strip_accents"
CLEANINGS = ("", ALBERT, LOWERCASE, STRIP_ACCENTS, f"{LOWERCASE} {STRIP_ACCENTS}")
NEXT_LINE = "\x85"  # the one white space that ALBERT splits at and SentencePiece's rules keep
_QUOTES_OR_ANY, _ANY = re.compile("``|''|.", re.DOTALL), re.compile(".", re.DOTALL)


class Cleaned(NamedTuple):
    """A text in the form that the model gets."""

    text: str
    begins: list[int] | None
    """Position in the original text of each character and of the end; None if the text is
    unchanged.
    """


class TextCleaning:
    """One of `CLEANINGS`, of which the empty one is nothing.

    For "albert" (github.com/google-research/albert, tokenization.py): quotes of two characters
    become one, accents are removed and, with `lowercase`, letters are lower-cased. As in
    `transformers`, every combining mark counts as an accent. For the others see `Letters`.
    """

    def __init__(self, name: str, lowercase: bool):
        self.name = name
        self.strip_accents = name == ALBERT or STRIP_ACCENTS in name
        self._lowercase = lowercase
        self._letters = Letters(LOWERCASE in name, STRIP_ACCENTS in name)

    def clean_all(self, texts: Iterable[str]) -> list[str]:
        """Return all texts in the form that the model gets."""
        if self.name == ALBERT:
            return [self.clean(text).text for text in texts]
        if self.name:
            return [text.translate(self._letters) for text in texts]
        return list(texts)

    def clean(self, text: str) -> Cleaned:
        """Return a text in the form that the model gets, with its positions."""
        if not self.name:
            return Cleaned(text, None)
        characters: list[str] = []
        begins: list[int] = []
        units = _QUOTES_OR_ANY if self.name == ALBERT else _ANY
        for match in units.finditer(text):
            kept = self._clean_character(match[0])
            characters += kept
            begins += [match.start()] * len(kept)
        return Cleaned("".join(characters), [*begins, len(text)])

    def loses_mark(self, character: str) -> bool:
        """Return whether a character has a mark that is removed."""
        if self.name == ALBERT:
            return loses_mark(character, "NFKD", ("Mn", "Mc", "Me"))
        return loses_mark(character)

    def normalizers(self) -> list[normalizers.Normalizer]:
        """Return the same as normalizers of `tokenizers`."""
        if not self.name:
            return []
        quotes: list[normalizers.Normalizer] = []
        if self.name == ALBERT:
            quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        return [*quotes, *character_steps(self._clean_character)]

    def _clean_character(self, matched: str) -> str:
        """The cleaned form of a character, or of a quote of two characters; it may be empty."""
        if self.name != ALBERT:
            return matched.translate(self._letters)
        if len(matched) == 2:
            return '"'
        kept = ""
        for character in unicodedata.normalize("NFKD", matched):
            if unicodedata.category(character).startswith("M"):
                continue
            # One character at a time, because `lower` of a whole word treats a final sigma
            # differently.
            kept += character.lower() if self._lowercase else character
        return kept.replace(NEXT_LINE, " ")
