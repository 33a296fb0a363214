"""Tokenizers behind one interface: trained, opened from a vocabulary, or loaded from a folder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, get_args

import numpy as np
from etils import epath

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.tokenizers.byte_bpe import MERGES_FILE, ByteBPE, open_byte_bpe
from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.vocabulary import SETTINGS_FILE
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError, check
from bertjax.masking.selection import Vocabulary
from bertjax.storage import is_plain_name, read_json


class Tokenizer(Protocol):
    """Text to ids and back. Ids are 0..vocab_size-1."""

    kind: TokenizerKind
    """As in `TokenizerConfig`."""
    lowercase: bool
    """Whether text is lower-cased."""
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
        """Ids of all texts, int32 `[n]`, and where each text begins in them, int64 `[len(texts) +
        1]`.

        No special token is added, and none comes out of text that spells one.
        """
        ...

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        """Where in its text each token begins, in characters, for the tokens of `encode_batch`."""
        ...

    def encode_with_masks(self, text: str) -> np.ndarray:
        """Ids of one text, int32, where each `[MASK]` in it, or the kind's own name of it, becomes
        `mask_id`.
        """
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's entry of each id."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens shown by name."""
        ...

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        """Write the folder that `load_tokenizer` reads, and `AutoTokenizer` of `transformers`.

        `model_max_length` is the most ids that the model takes, for whoever lets `transformers` cut
        text.
        """
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
    if config.kind == "byte_bpe":
        return ByteBPE.train(config, texts)
    return SentencePiece.train(config, texts)


def open_vocabulary(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of `config.vocab_file`: a `vocab.txt`, an entry a line; a SentencePiece
    `.model`; a `vocab.json` of byte-level BPE with its `merges.txt` beside it; or a saved
    tokenizer's folder.

    Raises `UserError` when the file is missing or broken or lacks a special token.
    """
    path = epath.Path(config.vocab_file)
    if (path / SETTINGS_FILE).exists():
        return load_tokenizer(path)
    return _make(config.kind, config.lowercase, path)


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """The tokenizer that was saved in `folder`; `UserError` when there is none."""
    path = epath.Path(folder) / SETTINGS_FILE
    check(path.exists(), where=str(path), found="no tokenizer", expected="a saved one")
    settings = read_json(path)
    missing = [key for key in ("kind", "do_lower_case", "vocab_file") if key not in settings]
    check(
        not missing,
        where=str(path),
        found=f"no tokenizer: no {missing[0] if missing else ''}",
        expected="a saved one",
    )
    kinds, kind = get_args(TokenizerKind), settings["kind"]
    check(
        kind in kinds,
        where=str(path),
        found=f"the kind {kind!r}",
        expected=f"one of {', '.join(kinds)}",
    )
    for key in ("do_lower_case", "add_prefix_space"):
        check(
            isinstance(settings.get(key, False), bool),
            where=f"{path}: {key}",
            found=repr(settings.get(key)),
            expected="true or false",
        )
    return _make(
        kind, settings["do_lower_case"], _inside(path, settings, "vocab_file"), path, settings
    )


def _inside(path: epath.Path, settings: Mapping[str, Any], key: str) -> epath.Path:
    """The file of the folder that a setting names; a folder from elsewhere must not name others'
    files.
    """
    name = settings.get(key)
    check(
        is_plain_name(name),
        where=f"{path}: {key}",
        found=repr(name),
        expected="the name of a file in this folder",
    )
    return path.parent / str(name)


def _make(
    kind: TokenizerKind,
    lowercase: bool,
    path: epath.Path,
    settings_path: epath.Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Tokenizer:
    settings = settings or {}
    if kind == "byte_bpe":
        merges = (
            _inside(settings_path, settings, "merges_file")
            if settings_path
            else path.parent / MERGES_FILE
        )
        return open_byte_bpe(path, lowercase, merges, settings.get("add_prefix_space", False))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a vocabulary ({error.strerror or error})"
        ) from error
    if kind == "wordpiece":
        return WordPiece(path, content, lowercase)
    return SentencePiece(path, content, kind, lowercase, settings.get("text_cleaning", ""))
