"""What of a text the rules of a `tokenizer.json` cannot represent."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content, unknown_token
from bertjax.data.tokenizers.losses import (
    CharacterCounts,
    LeftOut,
    Losses,
    count_by_text,
    loses_mark,
)
from bertjax.data.tokenizers.vocabulary import missing_bytes


class DeclaredLosses:
    """Counts of lost characters, by what the engine makes of each."""

    def __init__(self, content: Content, engine: Engine, is_bytes: bool):
        self._engine = engine
        self._file = content.file
        self.lowercase = "a" in self._normalized("A") and "A" not in self._normalized("A")
        self.strip_accents = self._strips("é")
        self._marks = CharacterCounts(self._strips)
        # A model with a token for unknown text leaves out none.
        unknown = unknown_token(content.engine["model"])
        has_unknown = unknown is not None
        self._unknown_id = None if unknown is None else content.ids[unknown]
        self.leaves_out = not has_unknown and not _has_all_bytes(engine, content, is_bytes)
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

    @cached_property
    def left_out(self) -> LeftOut:
        """The characters that no piece has, of an engine that leaves them out."""
        return LeftOut(self._file, self._engine)

    def _count_unknown(self, texts: Sequence[str]) -> int:
        """Count the characters in unknown tokens, white space aside."""
        count = 0
        encodings = self._engine.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            for i, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if i == self._unknown_id:
                    count += len("".join(text[begin:end].split()))
        return count

    def _is_left_out(self, character: str) -> bool:
        """Whether a character, or a part of it, has no piece; white space is not counted."""
        if character.isspace():
            return False
        return self.left_out.count(f"a{character}a") > self.left_out.count("aa")

    def _strips(self, character: str) -> bool:
        """Whether a character loses a mark: it has one, and none once it is normalized."""
        return loses_mark(character) and not loses_mark(self._normalized(character))

    def _normalized(self, text: str) -> str:
        normalizer = self._engine.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))


def _has_all_bytes(engine: Engine, content: Content, is_bytes: bool) -> bool:
    """Whether the model has a piece for each byte, so that it leaves out no character."""
    entries = engine.get_vocab(with_added_tokens=False)
    if is_bytes:
        return not missing_bytes(entries)
    falls_back = bool(content.engine["model"].get("byte_fallback"))
    return falls_back and all(f"<0x{byte:02X}>" in entries for byte in range(256))
