"""What of a text the rules of a `tokenizer.json` cannot represent."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.losses import CharacterCounts, Losses, count_by_text, loses_mark
from bertjax.data.tokenizers.vocabulary import missing_bytes


class DeclaredLosses:
    """Counts of lost characters, by what the engine makes of each."""

    def __init__(self, content: Content, engine: Engine, is_bytes: bool):
        self._engine = engine
        self.lowercase = "a" in self._normalized("A") and "A" not in self._normalized("A")
        self.strip_accents = self._strips("é")
        self._marks = CharacterCounts(self._strips)
        # A model with a token for unknown text leaves out none.
        leaves_out = content.engine["model"].get("unk_token") is None
        self._missing_bytes = missing_bytes(content.ids) if is_bytes else set()
        self.leaves_out = leaves_out and (bool(self._missing_bytes) or not is_bytes)
        self._left_out = CharacterCounts(self._is_left_out)

    def count(self, texts: Sequence[str], is_unknown: np.ndarray, offsets: np.ndarray) -> Losses:
        """Return the losses of texts; their tokens, of which some are unknown, have `offsets`."""
        unknown = stripped = 0
        unknown_tokens = np.flatnonzero(count_by_text(is_unknown, offsets))
        if len(unknown_tokens):
            unknown = self._count_unknown([texts[number] for number in unknown_tokens.tolist()])
        if self.leaves_out:
            unknown += sum(map(self._left_out.total, texts))
        if self.strip_accents:
            stripped = sum(self._marks.total(text) for text in texts if not text.isascii())
        return Losses(unknown, stripped)

    def left_out(self, text: str) -> set[int]:
        """Return the places of the characters of a text that no piece has."""
        if not self.leaves_out or not self._left_out.total(text):
            return set()
        return {place for place, character in enumerate(text) if self._left_out.total(character)}

    def _count_unknown(self, texts: Sequence[str]) -> int:
        """Count the characters in unknown tokens, white space aside."""
        count = 0
        encodings = self._engine.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            for token, (begin, end) in zip(encoding.tokens, encoding.offsets, strict=True):
                if token == self._engine.model.unk_token:
                    count += len("".join(text[begin:end].split()))
        return count

    def _is_left_out(self, character: str) -> bool:
        if character.isspace():
            return False
        if self._missing_bytes:
            return not self._missing_bytes.isdisjoint(character.encode(errors="surrogatepass"))
        alone = self._engine.encode(character, add_special_tokens=False).tokens
        if character in "".join(alone):
            return False
        # Alone it may leave the mark of a space: so it must change nothing between letters.
        texts = [f"a{character}a", "aa", "a a"]
        encodings = self._engine.encode_batch(texts, add_special_tokens=False)
        between, joined, apart = [encoding.ids for encoding in encodings]
        return not alone or between in (joined, apart)

    def _strips(self, character: str) -> bool:
        """Whether a character loses a mark: it has one, and none once it is normalized."""
        return loses_mark(character) and not loses_mark(self._normalized(character))

    def _normalized(self, text: str) -> str:
        normalizer = self._engine.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))
