"""What of a text a tokenizer cannot represent: unknown characters, and marks that it removes."""

import json
import unicodedata
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from bertjax.errors import check

# No text has it: Unicode keeps its first character free for uses inside a program.
_LEFT_OUT = "\U0010fffe left out"


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


class LeftOut:
    """Characters that a BPE model without a token for unknown text leaves out of a text.

    The package counts the places of tokens as if these characters were not there. A second engine
    without merges makes the same symbols, one by one and each at its place, and has a token for
    those that the first leaves out. So each token is found by the symbols it was merged from.
    """

    def __init__(self, file: object, engine: Engine):
        """Take the engine that leaves characters out, without special tokens around text."""
        content: dict[str, Any] = json.loads(engine.to_str())
        model = content["model"]
        self._file = file
        self._falls_back = model.get("byte_fallback", False)
        self._prefix = model.get("continuing_subword_prefix") or ""
        self._left_out_id = model["vocab"][_LEFT_OUT] = len(model["vocab"])
        model |= {"merges": [], "unk_token": _LEFT_OUT, "fuse_unk": False}
        self._engine = Engine.from_str(json.dumps({**content, "post_processor": None}))
        # What rules put before text, such as the mark of a space: at the first character's place.
        before, _, _ = "".join(self._symbols("a").tokens).partition("a")
        self._put_before = set(before)

    def count(self, text: str) -> int:
        """Return how many symbols of a text are left out."""
        # The fast form computes no offsets.
        (encoding,) = self._engine.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids.count(self._left_out_id)

    def spans(self, text: str, encoding: Encoding) -> list[tuple[int, int]]:
        """Return the (begin, end) of each token of a text, whose encoding is given.

        Where the text has a left-out character, blanks at the ends of a token are no part of it.
        Raises `UserError`, naming the file, where the places cannot be known.
        """
        if not self.count(text):
            return list(encoding.offsets)
        symbols = self._symbols(text)
        pairs = list(zip(symbols.tokens, symbols.offsets, strict=True))
        left_out = {place for symbol, place in pairs if symbol == _LEFT_OUT}
        # For each character of the tokens' entries: its place, and whether it is seen there.
        parts: list[tuple[int, int, bool]] = []
        for symbol, (begin, end) in pairs:
            if symbol == _LEFT_OUT:
                continue
            is_put = symbol in self._put_before and (begin, end) in left_out
            is_seen = not is_put and not all(map(is_blank, text[begin:end]))
            parts += [(begin, end, is_seen)] * self._size(symbol)
        sizes = [self._size(token) for token in encoding.tokens]
        check(
            not self._falls_back and sum(sizes) == len(parts),
            where=f"{self._file}: unk_token",
            found="none, and text with characters that have no piece beside byte_fallback or "
            "continuing_subword_prefix",
            expected="a token for unknown text: places in this text are not known",
        )
        spans = []
        begin = 0
        for size in sizes:
            own = parts[begin : begin + size]
            seen = [part for part in own if part[2]] or own
            spans.append((seen[0][0], seen[-1][1]))
            begin += size
        return spans

    def _symbols(self, text: str) -> Encoding:
        return self._engine.encode(text, add_special_tokens=False)

    def _size(self, entry: str) -> int:
        """The number of characters of an entry, without the mark that it continues a word."""
        return len(entry.removeprefix(self._prefix) or entry)


def is_blank(character: str) -> bool:
    """Return whether nothing is seen of a character: white space, control and format characters."""
    # These categories are what BERT's tokenizer drops: `_is_control` of its tokenization.py.
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def unread_of_texts(texts: Sequence[str], spans: Iterable[Iterable[tuple[int, int]]]) -> np.ndarray:
    """Return `unread_characters` of each text, joined; bool [characters]."""
    masks = [np.zeros(0, bool), *map(unread_characters, texts, spans)]
    return np.concatenate(masks)


def unread_characters(text: str, spans: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return true for each character that no token has, whose (begin, end) are given.

    What composes with a letter that is read is none of them: it belongs to this letter, also where
    accents are stripped, or syllables composed.
    """
    unread = np.ones(len(text), bool)
    for begin, end in spans:
        unread[begin:end] = False
    for position in np.flatnonzero(unread).tolist():
        has_letter = position > 0 and not unread[position - 1]
        unread[position] = not (has_letter and _continues_letter(text[position]))
    return unread


def _continues_letter(character: str) -> bool:
    """Whether it is a combining mark, or a vowel or final consonant of a Korean syllable.

    Those of half width (U+FF9E, U+FFC2) compose too, once they are normalized.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    is_jamo = "\u1160" <= first <= "\u11ff" or "\ud7b0" <= first <= "\ud7fb"
    return is_jamo or unicodedata.category(first).startswith("M")


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
