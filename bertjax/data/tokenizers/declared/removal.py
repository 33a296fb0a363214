"""Characters of a text that the rules of a `tokenizer.json` remove: no token has them."""

import unicodedata
from collections.abc import Iterable

import numpy as np

from bertjax.data.tokenizers.declared.content import Content, steps

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
    # A model without a token for unknown text leaves such text out.
    if content.engine["model"].get("unk_token") is None:
        return True
    all_steps = [*steps(content.engine["normalizer"]), *steps(content.engine["pre_tokenizer"])]
    return any(
        step.get("type") not in _KEEPING or step.get("behavior") == "Removed" for step in all_steps
    )


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
