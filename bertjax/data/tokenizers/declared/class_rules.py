"""Rules of classes that take the vocabulary from a `tokenizer.json` alone.

Version 5 of `transformers` builds their engines by rules of its own, version 4 takes the file. So a
file with other rules than its class would have two sets of ids.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bertjax.data.tokenizers.declared.content import read_model, section, unknown_token
from bertjax.data.tokenizers.declared.engines import open_engine
from bertjax.data.tokenizers.declared.rules import Difference
from bertjax.data.tokenizers.given.class_names import (
    BPE_OF_TEXT,
    UNIGRAM_OF_TEXT,
    UNIGRAM_OF_WORDS,
)
from bertjax.storage import Json

_LONGEST_SHOWN = 40  # characters of a text; the rules of a model are hundreds of thousands
Rules = Mapping[str, Any]
"""What a class has in the sections of its engine, and in fields of the model."""


def class_differences(name: str, file: str, engine: Json, settings: Json) -> Iterator[Difference]:
    """Yield what differs in a file from the rules of a class of `CLASS_RULES`.

    Each section is compared in the form in which today's `tokenizers` writes it.
    """
    model = read_model(file, engine)
    found = {f"model: {field}": value for field, value in _with_defaults(model).items()}
    found |= _sections(file, engine)
    for field, expected in CLASS_RULES[name](found, model, settings).items():
        if found.get(field) != expected:
            yield Difference(field, _shortened(found.get(field)), _shortened(expected))


def _with_defaults(model: Json) -> dict[str, Any]:
    """The fields of a model, those which older files lack too."""
    defaults = {"byte_fallback": False, "ignore_merges": False, "fuse_unk": False}
    fields = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    fields |= {affix: model.get(affix) or None for affix in affixes}
    fields["unk_token"] = unknown_token(model)
    return defaults | fields


def _sections(file: str, engine: Json) -> dict[str, Any]:
    """The normalizer and the pre-tokenizer as the package writes them; None where there is none."""
    names = ("normalizer", "pre_tokenizer")
    rules = {name: section(file, engine, name) or None for name in names}
    # Without entries, which may be many.
    empty = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    written = json.loads(open_engine(file, {**empty, **rules}).to_str())
    return {name: written[name] for name in names}


def _unigram_of_words(found: Rules, model: Json, settings: Json) -> Rules:
    """Words between white space, whose marks are put before them; the model's own normalization."""
    normalizer = found["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    own = [step for step in steps if step.get("type") == "Precompiled"]
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    return {
        "normalizer": own[0] if own else None,
        "pre_tokenizer": _sequence("pretokenizers", {"type": "WhitespaceSplit"}, _space(scheme)),
        "model: type": "Unigram",
        "model: unk_id": 3,
        "model: byte_fallback": False,
    }


def _unigram_of_text(found: Rules, model: Json, settings: Json) -> Rules:
    """Composed letters (NFC) and single spaces; the model's own normalization is left out."""
    steps: list[Json] = [{"type": "Lowercase"}] if settings.get("do_lower_case") else []
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    scheme = "always" if settings.get("add_prefix_space", True) else "first"
    words: list[Json] = [_space(scheme)]
    if settings.get("split_by_punct"):
        words.insert(0, {"type": "Punctuation", "behavior": "Isolated"})
    return {
        "normalizer": _sequence("normalizers", *steps, spaces, {"type": "NFC"}, strip),
        "pre_tokenizer": _sequence("pretokenizers", *words),
        "model: type": "Unigram",
        "model: unk_id": _unknown_id(model, settings),
        "model: byte_fallback": False,
    }


def _unknown_id(model: Json, settings: Json) -> Any:
    """The id that the class takes for unknown text: its name with a score of 0, or a setting."""
    name = settings.get("unk_token", "[UNK]")
    name = name.get("content") if isinstance(name, Mapping) else name
    vocab = model["vocab"] if isinstance(model["vocab"], list) else []
    ids = [i for i, entry in enumerate(vocab) if entry == [name, 0.0]]
    return ids[0] if ids else settings.get("unk_id", 1)


def _bpe_of_text(found: Rules, model: Json, settings: Json) -> Rules:
    """Pieces that go across words, with the mark of a space in them, and bytes for the unknown."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    split = {"type": "Split", "pattern": {"String": " "}, "invert": False}
    split["behavior"] = "MergedWithPrevious"
    fields = {
        "type": "BPE",
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    rules = {f"model: {field}": value for field, value in fields.items()}
    return {"normalizer": space, "pre_tokenizer": split, **rules}


def _sequence(key: str, *steps: Json) -> Json:
    return {"type": "Sequence", key: list(steps)}


def _space(scheme: str) -> Json:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}


def _shortened(value: Any) -> Any:
    """A value for a message of one line: long texts are cut."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return value[:_LONGEST_SHOWN] + "..."
    return value


CLASS_RULES: Mapping[str, Callable[[Rules, Json, Json], Rules]] = {
    UNIGRAM_OF_WORDS: _unigram_of_words,
    UNIGRAM_OF_TEXT: _unigram_of_text,
    BPE_OF_TEXT: _bpe_of_text,
}
"""By a class's name: its rules, given the file's sections and fields, its model, the settings."""
