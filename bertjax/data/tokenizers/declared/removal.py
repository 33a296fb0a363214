"""Characters of a text that the rules of a `tokenizer.json` remove: no token has them."""

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
    kind = step.get("type")
    if kind == "Replace":
        return bool(step.get("content"))
    # The package takes a step of which the type is no text by its other fields.
    is_keeping = isinstance(kind, str) and kind in _KEEPING
    return is_keeping and step.get("behavior") != "Removed"
