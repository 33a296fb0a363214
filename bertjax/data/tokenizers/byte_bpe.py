"""Byte-level BPE as RoBERTa's (arXiv 1907.11692, section 4.4), by the `tokenizers` package."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from etils import epath
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Engine

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.row_layout import bert_layout
from bertjax.data.tokenizers.given.merges import read_merges
from bertjax.data.tokenizers.given.registered_tokens import (
    Kept,
    add_registered,
    registered_settings,
    registered_text,
)
from bertjax.data.tokenizers.losses import CharacterCounts, LeftOut, Losses, unread_of_texts
from bertjax.data.tokenizers.vocabulary import (
    ENGINE_FILE,
    MASK,
    ROBERTA_TOKENS,
    ROLES,
    SPACE,
    SPECIAL_TOKENS,
    bytes_of,
    engine_json,
    fingerprint,
    flatten_ids,
    missing_bytes,
    save_files,
    special_tokens_in,
    token_begins,
)
from bertjax.data.tokenizers.word_starts import FIRST_RULE, WORD_RULE, bytes_begin_unspaced
from bertjax.errors import UserError, check
from bertjax.given_files import read_file
from bertjax.storage import read_json

FILE, MERGES_FILE = "vocab.json", "merges.txt"
_MASK_OPTIONS = {"lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
# The special tokens in the order of RoBERTa's ids: <s> <pad> </s> <unk> <mask>.
_TRAINED_TOKENS = [ROBERTA_TOKENS[i] for i in (2, 0, 3, 1, 4)]


class ByteBPE:
    """A `Tokenizer` over bytes: any text has pieces, and none is unknown; case is kept.

    A vocabulary that lacks a byte leaves it out of text, as in `transformers`.

    The start of a word is marked by the space before it. So the first piece of a text is not marked
    as the start of a word, unless `add_prefix_space` puts a space before every text.
    """

    def __init__(
        self,
        path: object,
        ids: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        add_prefix_space: bool = False,
        word_rule: int = WORD_RULE,
        registered: Sequence[AddedToken] = (),
    ):
        """Take the content of a vocabulary's files; `path` is their name for errors.

        The `registered` tokens are entries that text keeps whole; they are no special tokens.
        """
        entries = by_id(path, ids)
        self._path = path
        self.kind: TokenizerKind = "byte_bpe"
        self.lowercase = self.strip_accents = False
        self.word_rule = word_rule
        self._entries, self.merges = entries, list(merges)
        self._add_prefix_space = add_prefix_space
        self.vocab_size = len(entries)
        self._special = special_tokens_in(path, ids, ROBERTA_TOKENS, SPECIAL_TOKENS)
        role_ids = [ids[token] for token in self._special]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = role_ids
        self.layout = bert_layout(self.cls_id, self.sep_id)
        self.special_ids = np.array(role_ids, np.int32)
        self.starts_word = np.array([_starts_word(entry, word_rule) for entry in entries])
        self.starts_word[self.special_ids] = False
        self._missing_bytes = missing_bytes(ids)
        self._missing = CharacterCounts(self._is_missing)
        self._files = _canonical_files(entries, self.merges)
        content = b"".join(self._files.values())
        if add_prefix_space:
            # It changes the ids of a text's first word, so the fingerprint must tell it.
            content += b" prefix"
        content += registered_text(registered).encode()
        self.fingerprint = fingerprint(self.kind, False, content)
        try:
            model = models.BPE(dict(ids), self.merges)
        except Exception as error:  # the package raises no narrower one
            raise UserError(
                f"{path}: found merges that do not fit the vocabulary ({error})"
            ) from error
        self._engine = _engine(model, add_prefix_space)
        self.registered: Sequence[AddedToken] = list(registered)
        add_registered(self._engine, path, self.registered, self._special)
        # A second engine is needed, because in the first one text that spells the mask token must
        # not become the mask.
        self._engine_with_mask = Engine.from_str(self._engine.to_str())
        # As in RoBERTa, the mask absorbs the space before it.
        mask = AddedToken(self._special[ROLES.index("mask")], special=True, **_MASK_OPTIONS)
        self._engine_with_mask.add_special_tokens([mask])

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> "ByteBPE":
        """Train a vocabulary of the special tokens, the 256 bytes, and the most frequent merges."""
        check_cased(config)
        # Without all 256 bytes some text would have no pieces.
        smallest = len(_TRAINED_TOKENS) + 256
        check(
            config.vocab_size > smallest,
            where="tokenizer.vocab_size",
            found=config.vocab_size,
            expected=f"more than {smallest}",
        )
        engine = _engine(models.BPE(), False)
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=2,  # a pair that occurs once says nothing about the language
            show_progress=False,
            special_tokens=_TRAINED_TOKENS,
            # Sorted, because the package returns the bytes in the order of a hash map.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        sentences = list(texts)
        check(any(sentences), where="tokenizer", found="no text to train on", expected="words")
        engine.train_from_iterator(sentences, trainer)
        model = json.loads(engine.to_str())["model"]
        return cls("the trained vocabulary", model["vocab"], [(a, b) for a, b in model["merges"]])

    def with_registered(self, path: object, kept: Kept) -> "ByteBPE":
        """Return the tokenizer that keeps tokens whole; those which are no entries become some."""
        if not kept.tokens and not kept.new:
            return self
        ids = {entry: i for i, entry in enumerate([*self._entries, *kept.new])}
        prefix, rule = self._add_prefix_space, self.word_rule
        return ByteBPE(path, ids, self.merges, prefix, rule, kept.tokens)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # The fast form computes no offsets.
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return flatten_ids([encoding.ids for encoding in encodings])

    def encode_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Losses]:
        tokens, offsets = self.encode_batch(texts)
        unknown = sum(map(self._missing.total, texts)) if self._missing_bytes else 0
        return tokens, offsets, Losses(unknown, 0)

    def _is_missing(self, character: str) -> bool:
        if character.isspace():
            return False
        return not self._missing_bytes.isdisjoint(character.encode(errors="surrogatepass"))

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        return [token_begins(spans) for spans in self._spans(texts)]

    def unread(self, texts: Sequence[str]) -> np.ndarray | None:
        if not self._missing_bytes:
            return None
        return unread_of_texts(texts, self._spans(texts))

    def _spans(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
        """Yield the (begin, end) of each token of a text."""
        encodings = self._engine.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            if self._missing_bytes:
                yield self._left_out.spans(text, encoding)
            else:
                yield encoding.offsets

    @cached_property
    def _left_out(self) -> LeftOut:
        return LeftOut(self._path, self._engine)

    def encode_with_masks(self, text: str) -> np.ndarray:
        """As in `Tokenizer`; the tokenizer's own name of the mask is understood too."""
        own_mask = self._special[ROLES.index("mask")]
        encoding = self._engine_with_mask.encode(
            text.replace(MASK, own_mask), add_special_tokens=False
        )
        return np.array(encoding.ids, np.int32)

    def role_pieces(self) -> list[str]:
        """Return the names of the special tokens, in the order of `ROLES`."""
        return list(self._special)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._entries[i] for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return self._engine.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        by_role = dict(zip(ROLES, self._special, strict=True))
        post_processor = processors.RobertaProcessing(
            (by_role["sep"], self.sep_id),
            (by_role["cls"], self.cls_id),
            True,
            self._add_prefix_space,
        )
        engine = engine_json(self._engine, self._special, post_processor, mask_takes_space=True)
        settings = {
            "add_prefix_space": self._add_prefix_space,
            "tokenizer_class": "RobertaTokenizer",
            "bos_token": by_role["cls"],
            "eos_token": by_role["sep"],
            "mask_token": {
                "__type": "AddedToken",
                "content": by_role["mask"],
                "special": True,
                **_MASK_OPTIONS,
            },
            **registered_settings(self._engine, self.registered),
        }
        save_files(
            folder,
            self.kind,
            self.lowercase,
            {**self._files, ENGINE_FILE: engine},
            self._special,
            settings,
            model_max_length,
            self.word_rule,
        )


def _engine(model: models.BPE, add_prefix_space: bool) -> Engine:
    engine = Engine(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    engine.decoder = decoders.ByteLevel()
    # The post-processor only changes offsets: a token begins after its space.
    engine.post_processor = processors.ByteLevel(trim_offsets=True)
    return engine


def by_id(path: object, ids: Mapping[str, int]) -> list[str]:
    """Return the entries in the order of their ids, which must be 0, 1, and so on."""
    integers = all(type(i) is int for i in ids.values())  # `isinstance` would take True for 1
    check(
        integers and sorted(ids.values()) == list(range(len(ids))),
        where=str(path),
        found=f"{len(ids)} entries with ids that are not 0 to {len(ids) - 1}, each once",
        expected="ids without gaps",
    )
    # An entry's place in this list is its id, which is why there must be no gap.
    return sorted(ids, key=ids.__getitem__)


def check_cased(config: TokenizerConfig) -> None:
    """Raise `UserError` if letters are to be changed, which byte-level BPE does not do."""
    for name in ("lowercase", "strip_accents"):
        _check_false(f"tokenizer.{name}", getattr(config, name))


def _check_false(where: str, value: bool | None) -> None:
    expected = "False, for byte-level BPE takes text as it is"
    check(not value, where=where, found=value, expected=expected)


def _starts_word(entry: str, word_rule: int) -> bool:
    if entry.startswith(SPACE):
        return True
    return word_rule > FIRST_RULE and bytes_begin_unspaced(bytes_of(entry))


def open_byte_bpe(
    path: epath.Path,
    lowercase: bool,
    merges: epath.Path,
    add_prefix_space: bool = False,
    word_rule: int = WORD_RULE,
    registered: Sequence[AddedToken] = (),
) -> ByteBPE:
    """Open the tokenizer of a `vocab.json` and its `merges.txt`.

    Raises `UserError` naming the file that is missing or broken.
    """
    _check_false("tokenizer.lowercase", lowercase)
    ids = read_json(path)
    pairs = read_merges(merges, read_file(merges, "merges"))
    return ByteBPE(path, ids, pairs, add_prefix_space, word_rule, registered)


def _canonical_files(entries: Sequence[str], merges: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """`vocab.json` and `merges.txt` in one spelling, since the fingerprint is of their bytes."""
    ids = {entry: i for i, entry in enumerate(entries)}
    lines = "".join(f"{a} {b}\n" for a, b in merges)
    return {
        FILE: json.dumps(ids, ensure_ascii=False).encode(),
        # The header that `transformers` writes too.
        MERGES_FILE: f"#version: 0.2\n{lines}".encode(),
    }
