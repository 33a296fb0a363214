"""Tokenizers behind one interface: trained, opened from a vocabulary, or loaded from a folder."""

import json
from collections.abc import Iterable, Sequence
from typing import Protocol, get_args, get_type_hints

import numpy as np
from etils import epath

from bertjax.config import TokenizerConfig
from bertjax.data.sentencepiece import SentencePiece
from bertjax.data.vocabulary import SETTINGS_FILE
from bertjax.data.wordpiece import WordPiece
from bertjax.errors import UserError, check
from bertjax.masking import Vocabulary


class Tokenizer(Protocol):
    """Text to ids and back. Ids are 0..vocab_size-1."""

    vocab_size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: np.ndarray
    """Ids that are neither masked nor drawn as a random token; int32."""
    starts_word: np.ndarray
    """Whether a piece begins a word; bool [vocab_size], False for special ids."""
    fingerprint: str
    """Changes when the ids of any text could; hexadecimal."""

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, int32 `[n]`, and where each text begins in them, int64 `[len(texts) + 1]`.

        No special token is added, and none comes out of text that spells one.
        """
        ...

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        """Where in its text each token begins, in characters, for the tokens of `encode_batch`."""
        ...

    def encode_with_masks(self, text: str) -> np.ndarray:
        """Ids of one text, int32, where each `[MASK]` in it becomes `mask_id`."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's entry of each id."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens shown by name."""
        ...

    def save(self, folder: epath.PathLike) -> None:
        """Write the folder that `load_tokenizer` reads."""
        ...


def mask_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What masking must know of the tokenizer."""
    special = sorted(tokenizer.special_ids.tolist())
    return Vocabulary(tokenizer.mask_id, tuple(special), tokenizer.vocab_size)


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """A new tokenizer of `config.kind` from sentences: the same sentences give the same bytes.

    Raises `UserError` when there is no text, or too little for the vocabulary.
    """
    if config.kind == "wordpiece":
        return WordPiece.train(config, texts)
    return SentencePiece.train(config, texts)


def open_vocabulary(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of `config.vocab_file`: a `vocab.txt`, an entry a line, or a SentencePiece `.model`.

    Raises `UserError` when the file is missing or broken or lacks a special token.
    """
    return _make(config.kind, config.lowercase, epath.Path(config.vocab_file))


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """The tokenizer that was saved in `folder`; `UserError` when there is none."""
    path = epath.Path(folder) / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text())
        kind, lowercase, file = settings["kind"], settings["do_lower_case"], settings["vocab_file"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: found no tokenizer ({type(error).__name__}: {error}), expected a saved one"
        ) from error
    kinds = get_args(get_type_hints(TokenizerConfig)["kind"])
    check(kind in kinds, str(path), f"the kind {kind!r}", f"one of {', '.join(kinds)}")
    return _make(kind, lowercase, path.parent / file)


def _make(kind: str, lowercase: bool, path: epath.Path) -> Tokenizer:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a vocabulary ({error.strerror or error})") from error
    if kind == "wordpiece":
        return WordPiece(path, content, lowercase)
    return SentencePiece(path, content, kind, lowercase)
