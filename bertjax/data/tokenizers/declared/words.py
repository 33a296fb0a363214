"""Pieces that begin a word, by the mark that the model or the pre-tokenizer puts on pieces."""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content, steps
from bertjax.data.tokenizers.declared.engines import open_engine
from bertjax.data.tokenizers.given.registered_tokens import has_space
from bertjax.data.tokenizers.vocabulary import SPACE, bytes_of
from bertjax.data.tokenizers.word_starts import (
    FIRST_RULE,
    begins_unspaced,
    bytes_begin_unspaced,
)

TRIED = 200  # words that are put together to a text, to see whether their pieces show them


class Mark(NamedTuple):
    """The characters by which a piece shows whether it begins a word."""

    text: str
    begins: bool
    """True if pieces with the mark begin words; False if pieces without it do."""
    is_bytes: bool = False
    """True if the characters of a piece stand for bytes, by GPT-2's alphabet."""

    def begins_word(self, entry: str) -> bool:
        """Return whether the entry begins a word, by its mark alone."""
        return entry.startswith(self.text) == self.begins

    def without(self, entry: str) -> str:
        """Return the entry without the mark."""
        return entry.removeprefix(self.text)


def mark_of(content: Content) -> Mark:
    """Return the mark of a file's pieces; the empty one, which all have, where there is none."""
    prefix = content.engine["model"].get("continuing_subword_prefix")
    if prefix:
        return Mark(prefix, begins=False)
    all_steps = [*steps(content.engine["normalizer"]), *steps(content.engine["pre_tokenizer"])]
    if any(step.get("type") == "ByteLevel" for step in all_steps):
        return Mark(SPACE, begins=True, is_bytes=True)
    for step in all_steps:
        if step.get("type") == "Metaspace":
            return Mark(step.get("replacement") or "\u2581", begins=True)
    return Mark(_space_of(content), begins=True)


def _space_of(content: Content) -> str:
    """What the normalizer writes for a space between letters, as Llama's; empty where it keeps it.

    A rule may be a text or a regular expression, so it is tried, with a model that has no entries.
    """
    rules = content.engine["normalizer"]
    if rules is None:
        return ""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    engine = open_engine(content.file, {"version": "1.0", "normalizer": rules, "model": model})
    written = str(engine.normalizer.normalize_str("a a"))
    between = written.partition("a")[2].rpartition("a")[0]
    return "" if has_space(between) else between


def word_starts(content: Content, mark: Mark, word_rule: int) -> np.ndarray:
    """Return true for the pieces that begin a word; bool [vocab_size]."""
    starts = np.zeros(len(content.ids), bool)
    for entry, i in content.ids.items():
        starts[i] = mark.begins_word(entry)
        if not starts[i] and word_rule > FIRST_RULE:
            starts[i] = _is_unspaced(entry, mark)
    # A token that is found in text is no part of a word.
    starts[[token["id"] for token in content.added()]] = True
    starts[[content.ids[name] for name in content.special]] = False
    return starts


def shows_words(mark: Mark, engine: Engine, starts: np.ndarray) -> bool:
    """Return whether a piece that begins a word stands after a space.

    A pre-tokenizer may take the spaces away before it marks the words, or not divide text at them.
    """
    if not mark.text:
        return False
    words = list(islice(_words(engine, starts), TRIED))
    missed = 0
    for first, second in pairwise(words):
        encoding = engine.encode(f"{first} {second}", add_special_tokens=False)
        at_space = [
            i
            for i, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if begin <= len(first) + 1 and end > len(first)
        ]
        missed += not starts[at_space].any()
    return bool(words) and 2 * missed <= len(words)


def _words(engine: Engine, starts: np.ndarray) -> Iterator[str]:
    """Yield the texts of letters alone that begin a word, in the order of their ids."""
    for i in np.flatnonzero(starts).tolist():
        word = engine.decode([i], skip_special_tokens=False).strip()
        if word.isalpha():
            yield word


def _is_unspaced(entry: str, mark: Mark) -> bool:
    if mark.is_bytes:
        return bytes_begin_unspaced(bytes_of(entry))
    return begins_unspaced(mark.without(entry))
