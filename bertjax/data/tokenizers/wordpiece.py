"""WordPiece, by the `tokenizers` package."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
from etils import epath
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.vocabulary import (
    ENGINE_FILE,
    MASK,
    SPECIAL_TOKENS,
    UNK,
    bert_ends,
    engine_json,
    fingerprint,
    save_files,
    special_tokens_in,
)
from bertjax.errors import check, mismatch

FILE = "vocab.txt"
CONTINUES = "##"
KEPT = 400_000  # strings between spaces whose ids are kept: about 60 MB
LONGEST_WORD = 100  # characters; longer ones become [UNK], as in transformers


class WordPiece:
    """A `Tokenizer` over a `vocab.txt`: BERT's normaliser, BERT's words, longest match first."""

    def __init__(self, path: object, content: bytes, lowercase: bool):
        """`content` is the vocabulary file's bytes, `path` its name for errors."""
        entries = _entries(path, content)
        ids = {entry: i for i, entry in enumerate(entries)}
        self.kind: TokenizerKind = "wordpiece"
        self.lowercase = lowercase
        self._entries, self._content = entries, content
        self.vocab_size = len(entries)
        named = [ids[token] for token in special_tokens_in(path, ids, SPECIAL_TOKENS)]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = named
        self.special_ids = np.array(named, np.int32)
        self.starts_word = np.array([not entry.startswith(CONTINUES) for entry in entries])
        self.starts_word[self.special_ids] = False
        self.fingerprint = fingerprint("wordpiece", lowercase, content)
        self._engine = _engine(
            models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD), lowercase
        )
        self._forget()

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> "WordPiece":
        """A new vocabulary. `tokenizers` alone would give another one at every call.

        Its trainer numbers the characters in the order of a hash map and breaks ties by those
        numbers; given as "special" ones first, in our order, the numbers are ours.
        """
        sentences = list(texts)
        engine = _engine(models.WordPiece(unk_token=UNK), config.lowercase)
        first, later = _characters(
            engine, sentences, (config.vocab_size - len(SPECIAL_TOKENS)) // 2
        )
        check(
            first,
            where="tokenizer",
            found="no text to train on",
            expected="words, and room for 7 entries or more",
        )
        trainer = trainers.WordPieceTrainer(
            vocab_size=config.vocab_size,
            special_tokens=[*SPECIAL_TOKENS, *(CONTINUES + c for c in later)],
            initial_alphabet=first,
            limit_alphabet=len(first),
            min_frequency=2,
            show_progress=False,
        )
        engine.train_from_iterator(sentences, trainer)
        vocabulary = engine.get_vocab()
        entries = sorted(vocabulary, key=vocabulary.__getitem__)
        return cls(
            "the trained vocabulary",
            "".join(f"{entry}\n" for entry in entries).encode(),
            config.lowercase,
        )

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # BERT's words never go over a space, so what stands between spaces has the same ids
        # wherever it stands, and text repeats itself: most of it is looked up.
        chunks = [text.split(" ") for text in texts]
        flat = list(chain.from_iterable(chunks))
        which = np.fromiter(map(self._known.__getitem__, flat), np.int64, len(flat))
        if self._known.unseen:
            self._learn()
        begins = self._begins
        sizes = begins[which + 1] - begins[which]
        tokens = self._ids[ranges(begins[which], begins[which + 1])]
        ends = np.fromiter(accumulate(map(len, chunks), initial=0), np.int64, len(chunks) + 1)
        offsets = np.concatenate([[0], np.cumsum(sizes)])[ends]
        if len(self._known) > KEPT:
            self._forget()
        return tokens, offsets

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._engine.encode_batch(list(texts), add_special_tokens=False)
        return [[begin for begin, _ in encoding.offsets] for encoding in encoded]

    def _forget(self) -> None:
        self._known = _Numbered()
        self._begins, self._ids = np.zeros(1, np.int64), np.zeros(0, np.int32)

    def _learn(self) -> None:
        """Encode what was not seen before by the engine, and keep it."""
        encodings = self._engine.encode_batch_fast(self._known.unseen, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        self._known.unseen.clear()
        ends = self._begins[-1] + np.fromiter(accumulate(map(len, rows)), np.int64, len(rows))
        self._begins = np.concatenate([self._begins, ends])
        fresh = np.fromiter(chain.from_iterable(rows), np.int32, int(ends[-1] - len(self._ids)))
        self._ids = np.concatenate([self._ids, fresh])

    def encode_with_masks(self, text: str) -> np.ndarray:
        parts = [self.encode_batch([part])[0] for part in text.split(MASK)]
        mask = np.array([self.mask_id], np.int32)
        return np.concatenate([parts[0], *(x for part in parts[1:] for x in (mask, part))])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._entries[i] for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return self._engine.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        ends = bert_ends(SPECIAL_TOKENS, self.cls_id, self.sep_id)
        files = {FILE: self._content, ENGINE_FILE: engine_json(self._engine, SPECIAL_TOKENS, ends)}
        settings = {
            "tokenizer_class": "BertTokenizer",
            "tokenize_chinese_chars": True,
            "strip_accents": None,
        }
        save_files(
            folder,
            self.kind,
            self.lowercase,
            files,
            settings=settings,
            model_max_length=model_max_length,
        )


class _Numbered(dict[str, int]):
    """Numbers strings in the order in which they are first asked for; `unseen` are the latest of
    them.
    """

    def __init__(self) -> None:
        self.unseen: list[str] = []

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        self.unseen.append(text)
        return number


def _engine(model: models.WordPiece, lowercase: bool) -> Engine:
    engine = Engine(model)
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix=CONTINUES)
    return engine


def _entries(path: object, content: bytes) -> list[str]:
    """The lines of a vocabulary; blank and repeated ones would shift or hide ids."""
    try:
        entries = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise mismatch(
            where=str(path),
            found=f"bytes that are not UTF-8 ({error})",
            expected="an entry a line in UTF-8",
        ) from error
    entries = [entry.rstrip("\r") for entry in entries]
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        check(
            entry != "",
            where=f"{path}, line {number}",
            found="a blank line",
            expected="an entry of the vocabulary",
        )
        check(
            entry not in seen,
            where=f"{path}, line {number}",
            found=f"{entry!r} again, after line {seen.get(entry)}",
            expected="it once",
        )
        seen[entry] = number
    return entries


def _characters(engine: Engine, sentences: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """The characters to keep, and those of them that continue words; the most frequent, sorted."""
    chunks: Counter[str] = Counter()
    for sentence in sentences:
        chunks.update(engine.normalizer.normalize_str(sentence).split(" "))
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for chunk, count in chunks.items():
        # The engine's own cut: one continuing character missed here is numbered by a hash map
        # again.
        for word, _ in engine.pre_tokenizer.pre_tokenize_str(chunk):
            inside.update(word[1:])
            for character in word:
                counts[character] += count
    first = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:most])
    return first, [c for c in first if c in inside]
