"""Tokenizer that runs a `tokenizer.json` as it is, by the `tokenizers` package."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from etils import epath
from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Engine

from bertjax.config import TokenizerKind
from bertjax.data.row_layout import bert_layout
from bertjax.data.tokenizers.declared.content import DECISIVE, Content
from bertjax.data.tokenizers.declared.engines import plain_engine
from bertjax.data.tokenizers.declared.inputs import Inputs, export_post_processor
from bertjax.data.tokenizers.declared.losses import DeclaredLosses
from bertjax.data.tokenizers.declared.removal import may_remove
from bertjax.data.tokenizers.declared.words import Mark, mark_of, shows_words, word_starts
from bertjax.data.tokenizers.given.registered_tokens import check_distinct
from bertjax.data.tokenizers.losses import Losses, unread_of_texts
from bertjax.data.tokenizers.vocabulary import (
    ENGINE_FILE,
    MASK,
    ROLES,
    fingerprint,
    flatten_ids,
    save_files,
)
from bertjax.data.tokenizers.word_starts import WORD_RULE
from bertjax.errors import check
from bertjax.storage import Json

RULES = "rules"
"""The field of saved settings that says that `tokenizer.json` has the rules."""
# Settings that change nothing of the ids, and are kept for other programs.
_KEPT_SETTINGS = (
    "additional_special_tokens",
    "extra_special_tokens",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "bos_token",
    "eos_token",
)


class DeclaredTokenizer:
    """A `Tokenizer` with the normalizer, words, model and added tokens that a file declares.

    Added tokens are found in text as the file says. The special tokens alone are not: text that
    spells one does not become one.
    """

    def __init__(
        self,
        content: Content,
        settings: Mapping[str, Any],
        inputs: Inputs,
        word_rule: int = WORD_RULE,
    ):
        """Take a file's content; `settings` are those beside it."""
        self._content, self._inputs = content, inputs
        self.layout = inputs.layout
        self.word_rule = word_rule
        self._mark = mark_of(content)
        self.kind: TokenizerKind = _kind(content, self._mark.is_bytes)
        self.vocab_size = len(content.ids)
        self._entries = content.entries()
        role_ids = {role: content.ids[name] for role, name in content.roles.items()}
        self.unk_id = role_ids.get("unk")
        self.pad_id, self.mask_id = role_ids["pad"], role_ids["mask"]
        self.cls_id, self.sep_id = role_ids["cls"], role_ids["sep"]
        self.special_ids = np.array([content.ids[name] for name in content.special], np.int32)
        self.registered: Sequence[AddedToken] = _registered(content)
        self._engine = plain_engine(content, content.special)
        check_distinct(self._engine, content.file, self.registered)
        self._losses = DeclaredLosses(content, self._engine, self._mark.is_bytes)
        self._may_remove = self._losses.leaves_out or may_remove(content)
        self.lowercase = self._losses.lowercase
        self.strip_accents = self._losses.strip_accents
        self.starts_word = word_starts(content, self._mark, word_rule)
        self._shows_words = shows_words(self._mark, self._engine, self.starts_word)
        if not self._shows_words:
            # As in scripts without spaces, each piece is a word.
            self.starts_word[:] = True
        self.starts_word[self.special_ids] = False
        self._kept_settings = {key: settings[key] for key in _KEPT_SETTINGS if settings.get(key)}
        # Older fingerprints have the names of all roles in their order.
        roles = content.special if len(content.special) == len(ROLES) else dict(content.roles)
        decisive = {name: content.engine[name] for name in DECISIVE} | {"roles": roles}
        if self.layout != bert_layout(self.cls_id, self.sep_id):
            decisive["layout"] = asdict(self.layout)
        text = json.dumps(decisive, sort_keys=True)
        self.fingerprint = fingerprint(ENGINE_FILE, self.lowercase, text.encode())

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # The fast form computes no offsets.
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return flatten_ids([encoding.ids for encoding in encodings])

    def encode_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Losses]:
        tokens, offsets = self.encode_batch(texts)
        no_id = -1  # of any token
        is_unknown = tokens == (no_id if self.unk_id is None else self.unk_id)
        return tokens, offsets, self._losses.count(texts, is_unknown, offsets)

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        begins_by_text: list[list[int]] = []
        for text, offsets in zip(texts, self._offsets(texts), strict=True):
            begins_by_text.append([_first_visible(text, begin, end) for begin, end in offsets])
        return begins_by_text

    def unread(self, texts: Sequence[str]) -> np.ndarray | None:
        if not self._may_remove:
            return None
        return unread_of_texts(texts, self._offsets(texts))

    def _offsets(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
        """Yield the (begin, end) of each token of a text."""
        encodings = self._engine.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            if self._losses.leaves_out:
                yield self._losses.left_out.spans(text, encoding)
            else:
                yield list(encoding.offsets)

    def encode_with_masks(self, text: str) -> np.ndarray:
        """As in `Tokenizer`; the mask takes the spaces beside it that the file says."""
        own_mask = self._content.roles["mask"]
        encoding = self._engine_with_mask.encode(
            text.replace(MASK, own_mask), add_special_tokens=False
        )
        return np.array(encoding.ids, np.int32)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._entries[i] for i in ids]

    def words(self) -> dict[str, int]:
        """Return the ids of the entries that begin a word, by the word without its mark."""
        ids: dict[str, int] = {}
        for i in np.flatnonzero(self.starts_word).tolist():
            entry = self._entries[i]
            word = self._mark.without(entry) if self._mark.begins else entry
            if word and (self._mark.begins or self._mark.begins_word(entry)):
                ids[word] = i
        return ids

    def check_word_starts(self, path: object) -> None:
        """Raise `UserError`, naming `path`, where pieces do not show words: masking needs them."""
        suffix = self._content.engine["model"].get("end_of_word_suffix")
        check(
            self._shows_words or not suffix,
            where=f"{path}: end_of_word_suffix",
            found=f"{suffix!r}, by which pieces show where words end",
            expected="pieces that show where words begin, for masks of whole words",
        )
        check(
            self._shows_words,
            where=f"{path}: pre_tokenizer",
            found="pieces that do not show where words begin",
            expected="a mark of pieces that continue words, or the space in the pieces",
        )

    def decode(self, ids: Iterable[int]) -> str:
        return self._complete.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        content = self._content
        post_processor = export_post_processor(content, self._inputs.form)
        values = {**content.engine, "post_processor": post_processor}
        pre_tokenizer = values["pre_tokenizer"] or {}
        settings: dict[str, Any] = {
            RULES: ENGINE_FILE,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        if self._inputs.gives_segments:
            # By default version 5 of `transformers` leaves the segments out.
            settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        settings |= self._kept_settings
        if "add_prefix_space" in pre_tokenizer:
            # Without it `transformers` 4 would set the pre-tokenizer's to false.
            settings["add_prefix_space"] = pre_tokenizer["add_prefix_space"]
        save_files(
            folder,
            self.kind,
            self.lowercase,
            {ENGINE_FILE: _file_of(values, content.raw)},
            [content.roles.get(role) for role in ROLES],
            settings,
            model_max_length,
            self.word_rule,
        )

    @cached_property
    def _engine_with_mask(self) -> Engine:
        mask = self._content.roles["mask"]
        others = [name for name in self._content.special if name != mask]
        return plain_engine(self._content, others)

    @cached_property
    def _complete(self) -> Engine:
        """The engine that writes ids as text."""
        engine = plain_engine(self._content, ())
        if engine.decoder is None:
            engine.decoder = _decoder_of(self._mark)
        return engine


def _registered(content: Content) -> list[AddedToken]:
    """The added tokens but the special ones: text keeps them whole."""
    tokens = []
    for token in content.added():
        if token["content"] not in content.special:
            fields = {name: value for name, value in token.items() if name != "id"}
            tokens.append(AddedToken(**fields))
    return tokens


def _kind(content: Content, is_bytes: bool) -> TokenizerKind:
    kinds: Mapping[str, TokenizerKind] = {"WordPiece": "wordpiece", "Unigram": "unigram"}
    return kinds.get(content.algorithm()) or ("byte_bpe" if is_bytes else "bpe")


def _decoder_of(mark: Mark) -> decoders.Decoder:
    """The decoder of a file that declares none."""
    if mark.is_bytes:
        return decoders.ByteLevel()
    if mark.text and mark.begins:
        return decoders.Metaspace(mark.text)
    return decoders.WordPiece()


def _file_of(engine: Json, raw: bytes) -> bytes:
    """The content of a `tokenizer.json`: the bytes that were read, if they say the same."""
    if raw and {**dict.fromkeys(engine), **json.loads(raw)} == engine:
        return raw
    return json.dumps(engine, ensure_ascii=False).encode()


def _first_visible(text: str, begin: int, end: int) -> int:
    """The first character of a piece that is not white space; its begin if there is none."""
    for position in range(begin, end):
        if not text[position].isspace():
            return position
    return begin
