"""Characters of a text that the rules of a `tokenizer.json` remove: no token has them."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content, steps
from bertjax.storage import Json

# Steps that remove white space, control characters and combining marks at most.
_KEEPING = frozenset(
    (
        "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Prepend",
        "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace", "Digits",
        "Punctuation", "Split", "UnicodeScripts",
    )
)  # fmt: skip


def may_remove(content: Content) -> bool:
    """Return whether the rules may remove characters that are seen, such as a delimiter."""
    all_steps = [*steps(content.engine["normalizer"]), *steps(content.engine["pre_tokenizer"])]
    return not all(_keeps(step) for step in all_steps)


def _keeps(step: Json) -> bool:
    if step.get("type") == "Replace":
        return bool(step.get("content"))
    return step.get("type") in _KEEPING and step.get("behavior") != "Removed"


def places_without(
    engine: Engine, text: str, ids: Sequence[int], left_out: Collection[int]
) -> list[tuple[int, int]] | None:
    """Return the places in a text of its tokens `ids`, where characters have no piece.

    The package counts places as if the characters `left_out` were not there. So the tokens are
    found in the text without them, or with spaces for them; None where both have other tokens.
    """
    kept = [i for i in range(len(text)) if i not in left_out]
    shorter = engine.encode("".join(text[i] for i in kept), add_special_tokens=False)
    if shorter.ids == list(ids):
        return [(kept[a], kept[b - 1] + 1) if b > a else (0, 0) for a, b in shorter.offsets]
    spaced = "".join(" " if i in left_out else text[i] for i in range(len(text)))
    encoding = engine.encode(spaced, add_special_tokens=False)
    return list(encoding.offsets) if encoding.ids == list(ids) else None


def unread_characters(text: str, offsets: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return true for each character that no token has, whose `offsets` are given.

    A combining mark is none of them: it belongs to its letter, also where accents are stripped.
    """
    unread = np.ones(len(text), bool)
    for begin, end in offsets:
        unread[begin:end] = False
    for position in np.flatnonzero(unread).tolist():
        unread[position] = not unicodedata.category(text[position]).startswith("M")
    return unread
