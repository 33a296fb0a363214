"""Comparison of a `tokenizer.json` with the rules of BERT and of RoBERTa."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.vocabulary import (
    CONTINUES,
    MAX_WORD_CHARACTERS,
    ROBERTA_TOKENS,
    SPECIAL_TOKENS,
    UNK,
    missing_bytes,
)

_ABSENT = object()
# Fields by section, with what the faster engines do. A field that a file need not have stands in
# `_DEFAULTS`, with what it means where it is absent.
_BERT: Mapping[str, Mapping[str, Any]] = {
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {
        "type": "WordPiece",
        "unk_token": UNK,
        "continuing_subword_prefix": CONTINUES,
        "max_input_chars_per_word": MAX_WORD_CHARACTERS,
    },
}
_ROBERTA: Mapping[str, Mapping[str, Any]] = {
    "normalizer": {"type": None},
    "pre_tokenizer": {"type": "ByteLevel", "use_regex": True},
    "model": {
        "type": "BPE",
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
}
_DEFAULTS: Mapping[str, Any] = {
    "clean_text": True,
    "handle_chinese_chars": True,
    "use_regex": True,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


class Difference(NamedTuple):
    """A field of a `tokenizer.json` that is not as expected."""

    field: str
    found: Any
    expected: Any


def bert_differences(engine: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the fields that differ from BERT's, of the sections that the file has."""
    return _differences(engine, _BERT)


def roberta_differences(engine: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the fields that differ from RoBERTa's, of the sections that the file has."""
    return _differences(engine, _ROBERTA)


def is_bert(content: Content) -> bool:
    """Return whether the file gives the ids of BERT's rules for any text."""
    if content.special != SPECIAL_TOKENS or any(bert_differences(content.engine)):
        return False
    return _adds_special_only(content, mask_takes_space=False)


def is_roberta(content: Content) -> bool:
    """Return whether the file gives the ids of RoBERTa's rules for any text."""
    if content.special != ROBERTA_TOKENS or any(roberta_differences(content.engine)):
        return False
    # A token for unknown text stands for bytes that the vocabulary lacks.
    if content.engine["model"].get("unk_token") and missing_bytes(content.ids):
        return False
    return _adds_special_only(content, mask_takes_space=True)


def _differences(
    engine: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    for name, fields in rules.items():
        # A section that is null declares that there is none.
        values = engine.get(name, _ABSENT)
        if values is _ABSENT:
            continue
        present = values if isinstance(values, dict) else {}
        for field, expected in fields.items():
            found = present.get(field)
            # An older file does not say the type of its model.
            if name == "model" and field == "type" and found is None:
                continue
            if found is None:
                found = _DEFAULTS.get(field)
            if found != expected:
                yield Difference(f"{name}: {field}", found, expected)


def _adds_special_only(content: Content, mask_takes_space: bool) -> bool:
    """Return whether no other tokens are added than the special ones, and the mask as expected.

    The others' flags do not matter, since none of them is found in text.
    """
    model_ids = content.engine["model"]["vocab"]
    by_name = {token["content"]: token for token in content.added()}
    if not set(by_name) <= set(content.special) or len(model_ids) != len(content.ids):
        return False
    mask = by_name.get(content.roles["mask"], {})
    expected = {"single_word": False, "lstrip": mask_takes_space, "rstrip": False}
    return all(mask.get(flag, False) == value for flag, value in expected.items())
