"""The interface of all tokenizers, and the three ways to get one.

A tokenizer is trained, opened from an existing vocabulary, or loaded from a folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, get_args

import numpy as np
from etils import epath
from tokenizers import AddedToken

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.row_layout import RowLayout
from bertjax.data.tokenizers import byte_bpe, sentencepiece, wordpiece
from bertjax.data.tokenizers.byte_bpe import MERGES_FILE, ByteBPE, check_cased, open_byte_bpe
from bertjax.data.tokenizers.declared.reader import engine_in, load_declared, open_declared
from bertjax.data.tokenizers.declared.tokenizer import RULES, DeclaredTokenizer
from bertjax.data.tokenizers.given.reachable import warn_of_unreachable
from bertjax.data.tokenizers.given.registered_tokens import saved_tokens
from bertjax.data.tokenizers.given.vocab_txt import warn_of_odd_lines, wordpiece_fingerprint
from bertjax.data.tokenizers.losses import Losses
from bertjax.data.tokenizers.sentencepiece import SentencePiece, letter_cleaning
from bertjax.data.tokenizers.vocabulary import (
    ENGINE_FILE,
    SETTINGS_FILE,
    check_bool,
    read_vocabulary,
)
from bertjax.data.tokenizers.word_starts import FIRST_RULE, WORD_RULE
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import check, mismatch
from bertjax.given_files import place_of
from bertjax.masking.long_words import MAX_WORD_PIECES
from bertjax.masking.selection import Vocabulary
from bertjax.storage import is_plain_name, read_json, read_json_if_there

FILES: Mapping[TokenizerKind, str] = {
    "wordpiece": wordpiece.FILE,
    "unigram": sentencepiece.FILE,
    "bpe": sentencepiece.FILE,
    "byte_bpe": byte_bpe.FILE,
}
"""The name of the vocabulary in a saved folder."""


class Tokenizer(Protocol):
    """Text to ids and back; ids are 0 to `vocab_size` - 1."""

    kind: TokenizerKind
    """As in `TokenizerConfig`."""
    lowercase: bool
    """True if text is lower-cased."""
    strip_accents: bool
    """True if accents are removed."""
    vocab_size: int
    """Number of entries of the vocabulary, special tokens included."""
    pad_id: int
    """Id of the padding."""
    cls_id: int
    """Id of the token before the first text."""
    sep_id: int
    """Id of the token that ends a text; it may be that of `cls_id` or `pad_id` too. Rows have it
    where `layout` says so."""
    layout: RowLayout
    """The special tokens of a row, and their places: all rows are built by it."""
    mask_id: int
    """Id of a masked token."""
    special_ids: np.ndarray
    """Ids that are neither masked nor drawn as a random token; int32."""
    starts_word: np.ndarray
    """True for pieces that begin a word; bool [vocab_size], False for special ids."""
    word_rule: int
    """The rule of `starts_word`, and of long words: see `word_starts.WORD_RULE`."""
    registered: Sequence[AddedToken]
    """Entries that text keeps whole, as `<user>`; special ids are none of them."""
    fingerprint: str
    """Hexadecimal digest that changes if the ids of any text or row could change."""

    @property
    def unk_id(self) -> int | None:
        """Id for text that the vocabulary cannot represent; None where it represents any text."""

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts, one text after another, and the offset of each text in them.

        Ids are int32 `[n]`. Offsets are int64 `[len(texts) + 1]`; the last one is `n`. No special
        token is added, and text that spells a special token does not become one. Registered tokens
        of a folder (`given.registered_tokens`) are kept whole.
        """
        ...

    def encode_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Losses]:
        """Return the ids and offsets of `encode_batch`, and what they do not have of the texts."""
        ...

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the position in the text of each token's first character, as in `encode_batch`."""
        ...

    def unread(self, texts: Sequence[str]) -> np.ndarray | None:
        """Return true for each character of the joined texts that no token has; bool [characters].

        Such a character is a delimiter that a file's rules remove. None: at most white space and
        marks have no token.
        """
        ...

    def encode_with_masks(self, text: str) -> np.ndarray:
        """Return the ids of one text, int32; each `[MASK]` in it becomes `mask_id`.

        If the tokenizer has another name for the mask, that name becomes `mask_id` too.
        """
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the vocabulary's entry of each id."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special tokens are written by name."""
        ...

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        """Write the folder that `load_tokenizer` reads, and `AutoTokenizer` of `transformers`.

        `model_max_length` is the number of ids to which `transformers` truncates text when it is
        asked to; None: the folder does not say.
        """
        ...


def mask_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the part of a tokenizer's vocabulary that masking needs."""
    # Ascending, as `Vocabulary` wants them: RoBERTa's roles are not in the order of their ids.
    special_ids = sorted(tokenizer.special_ids.tolist())
    limit = 0 if tokenizer.word_rule == FIRST_RULE else MAX_WORD_PIECES
    return Vocabulary(tokenizer.mask_id, tuple(special_ids), tokenizer.vocab_size, limit)


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Train a tokenizer of `config.kind` on sentences; the same sentences give the same bytes.

    Raises `UserError` when there is no text, or too little for the vocabulary.
    """
    if config.kind == "wordpiece":
        return WordPiece.train(config, texts)
    if config.kind == "byte_bpe":
        return ByteBPE.train(config, texts)
    return SentencePiece.train(config, texts)


def open_vocabulary(config: TokenizerConfig) -> Tokenizer:
    """Open the tokenizer of `config.vocab_file`.

    That is a `vocab.txt`, an entry a line; a SentencePiece `.model`; a `vocab.json` of byte-level
    BPE with its `merges.txt` beside it; a `tokenizer.json` of any name, which is run as it
    is; or a saved tokenizer's folder. Raises `UserError` when the file is missing or broken or
    lacks a special token, or cannot treat letters as `config` asks, or where its pieces do not show
    words.
    """
    path = place_of(config.vocab_file)
    # A saved folder says itself how its text is read; `config` is for files that do not.
    tokenizer = _self_contained(path)
    if tokenizer is not None:
        check(
            config.strip_accents in (None, tokenizer.strip_accents),
            where="tokenizer.strip_accents",
            found=config.strip_accents,
            expected=f"{tokenizer.strip_accents}, as {path} says",
        )
        if isinstance(tokenizer, DeclaredTokenizer):
            tokenizer.check_word_starts(path)
        return tokenizer
    if config.kind == "byte_bpe":
        check_cased(config)
        # `transformers` saves the two files side by side under these names.
        return open_byte_bpe(path, config.lowercase, path.parent / MERGES_FILE)
    content = read_vocabulary(path)
    if config.kind == "wordpiece":
        opened = WordPiece(path, content, config.lowercase, config.strip_accents)
        entries = opened.pieces(range(opened.vocab_size))
        warn_of_odd_lines(path, entries)
        advice = "--tokenizer.lowercase False keeps capital letters"
        warn_of_unreachable(path, entries, opened.lowercase, opened.strip_accents, (), advice)
        return opened
    cleaning = letter_cleaning(path, content, config)
    model = SentencePiece(path, content, config.kind, config.lowercase, cleaning)
    model.check_word_starts(path)
    return model


def _self_contained(path: epath.Path) -> Tokenizer | None:
    """The tokenizer of a saved folder or of a tokenizer.json; None for any other path."""
    if (path / SETTINGS_FILE).exists():
        return _load(path, word_rule=WORD_RULE)
    engine = engine_in(path)
    if engine is None:
        return None
    # Of a folder that bertjax saved, the settings say how the file is to be read.
    if path.name == ENGINE_FILE and "kind" in read_json_if_there(path.parent / SETTINGS_FILE):
        return _load(path.parent, word_rule=WORD_RULE)
    return open_declared(path, engine)


def _is_self_contained(path: epath.Path) -> bool:
    return (path / SETTINGS_FILE).exists() or engine_in(path) is not None


def is_opened_from(fingerprint: str, config: TokenizerConfig) -> bool:
    """Return whether a tokenizer of this fingerprint was opened from `config.vocab_file`.

    Earlier versions left letters to a SentencePiece model, whatever `config.lowercase` said, and
    read a `vocab.txt` as `read_saved_entries` does.
    """
    path = place_of(config.vocab_file)
    if not _is_self_contained(path) and fingerprint == _earlier_fingerprint(path, config):
        return True
    return open_vocabulary(config).fingerprint == fingerprint


def _earlier_fingerprint(path: epath.Path, config: TokenizerConfig) -> str | None:
    """The fingerprint that earlier versions gave a file; None where it is that of today."""
    if config.kind == "wordpiece":
        return wordpiece_fingerprint(read_vocabulary(path), config.lowercase, config.strip_accents)
    if config.kind != "byte_bpe" and not config.strip_accents:
        model = SentencePiece(path, read_vocabulary(path), config.kind, config.lowercase)
        return model.fingerprint
    return None


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """Load the tokenizer that was saved in `folder`; `UserError` when there is none."""
    return _load(place_of(folder))


def _load(folder: epath.Path, word_rule: int | None = None) -> Tokenizer:
    """Load a saved tokenizer, with its own rule of words or with `word_rule`."""
    path = folder / SETTINGS_FILE
    check(path.exists(), where=str(path), found="no tokenizer", expected="a saved one")
    settings = read_json(path)
    for key in ("kind", "do_lower_case"):
        if key not in settings:
            raise mismatch(where=str(path), found=f"no tokenizer: no {key}", expected="a saved one")
    # The folder may be from elsewhere, so nothing in it is taken unchecked.
    kinds, kind = get_args(TokenizerKind), settings["kind"]
    check(
        kind in kinds,
        where=str(path),
        found=f"the kind {kind!r}",
        expected=f"one of {', '.join(kinds)}",
    )
    lowercase, prefix = settings["do_lower_case"], settings.get("add_prefix_space", False)
    check_bool(f"{path}: do_lower_case", lowercase)
    check_bool(f"{path}: add_prefix_space", prefix)
    rule = _word_rule(path, settings) if word_rule is None else word_rule
    rules_file = settings.get(RULES)
    if rules_file is not None:
        check(
            rules_file == ENGINE_FILE,
            where=f"{path}: {RULES}",
            found=repr(rules_file),
            expected=repr(ENGINE_FILE),
        )
        return load_declared(folder, settings, rule)
    file = _file_in_folder(path, settings, "vocab_file", FILES[kind])
    registered = saved_tokens(path, settings)
    if kind == "byte_bpe":
        merges = _file_in_folder(path, settings, "merges_file", MERGES_FILE)
        return open_byte_bpe(file, lowercase, merges, prefix, rule, registered)
    content = read_vocabulary(file)
    if kind == "wordpiece":
        accents = settings.get("strip_accents")
        if accents is not None:
            check_bool(f"{path}: strip_accents", accents)
        return WordPiece(file, content, lowercase, accents, rule, registered, is_saved=True)
    cleaning = settings.get("text_cleaning", "")
    return SentencePiece(file, content, kind, lowercase, cleaning, rule)


def _word_rule(path: epath.Path, settings: Mapping[str, Any]) -> int:
    rule = settings.get("word_rule", FIRST_RULE)
    check(
        # `isinstance` would take JSON's true for 1.
        type(rule) is int and FIRST_RULE <= rule <= WORD_RULE,
        where=f"{path}: word_rule",
        found=repr(rule),
        expected=f"{FIRST_RULE} to {WORD_RULE}",
    )
    return int(rule)


def _file_in_folder(
    path: epath.Path, settings: Mapping[str, Any], key: str, usual: str
) -> epath.Path:
    """The file that a setting names, as earlier versions did; the `usual` one without the setting.

    The file must be in the folder of the settings, because an untrusted folder must not be able to
    make bertjax read other files of this machine.
    """
    name = settings.get(key, usual)
    check(
        is_plain_name(name),
        where=f"{path}: {key}",
        found=repr(name),
        expected="the name of a file in this folder",
    )
    return path.parent / str(name)
