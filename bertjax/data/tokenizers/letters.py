"""Changes of letters before a SentencePiece model sees them: lower case, and no accents."""

import unicodedata


class Letters(dict[int, str]):
    """Table for `str.translate`, with the changes that BERT makes; filled as characters come up.

    Accents are the nonspacing marks (category Mn) of the decomposed character.
    """

    def __init__(self, lowercase: bool, strip_accents: bool):
        self.lowercase, self.strip_accents = lowercase, strip_accents

    def __missing__(self, code: int) -> str:
        text = chr(code)
        if self.strip_accents:
            parts = [
                c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn"
            ]
            # Composed again: a syllable of Korean would come apart into letters.
            text = unicodedata.normalize("NFC", "".join(parts))
        if self.lowercase:
            # Character by character, because `lower` of a word treats a final sigma differently.
            text = "".join(character.lower() for character in text)
        self[code] = text
        return text
