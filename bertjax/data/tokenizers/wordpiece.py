"""WordPiece as BERT's (arXiv 1810.04805, section 3), by the `tokenizers` package."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
from etils import epath
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.ragged import ranges
from bertjax.data.row_layout import bert_layout
from bertjax.data.tokenizers.given.registered_tokens import (
    add_registered,
    has_space,
    registered_settings,
)
from bertjax.data.tokenizers.given.vocab_txt import (
    read_entries,
    read_saved_entries,
    wordpiece_fingerprint,
)
from bertjax.data.tokenizers.losses import CharacterCounts, Losses, count_by_text, loses_mark
from bertjax.data.tokenizers.vocabulary import (
    CLS,
    CONTINUES,
    ENGINE_FILE,
    MASK,
    MAX_WORD_CHARACTERS,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    bert_post_processor,
    engine_json,
    flatten_ids,
    save_files,
    special_tokens_in,
    token_begins,
)
from bertjax.data.tokenizers.word_starts import FIRST_RULE, WORD_RULE, begins_unspaced
from bertjax.errors import check

FILE = "vocab.txt"
CACHED_CHUNKS = 400_000  # strings between spaces whose ids are kept: about 60 MB


class WordPiece:
    """A `Tokenizer` over a `vocab.txt`: BERT's normalizer, BERT's words, longest match first."""

    def __init__(
        self,
        path: object,
        content: bytes,
        lowercase: bool,
        strip_accents: bool | None = None,
        word_rule: int = WORD_RULE,
        registered: Sequence[AddedToken] = (),
        is_saved: bool = False,
    ):
        """Take the vocabulary file's bytes; `path` is its name for errors.

        `strip_accents` None is the same as `lowercase`. The `registered` tokens are entries that
        text keeps whole; they are none of the special tokens. `is_saved`: bertjax saved the file.
        """
        read = read_saved_entries if is_saved else read_entries
        entries, content = read(path, content)
        ids = {entry: i for i, entry in enumerate(entries)}
        self.kind: TokenizerKind = "wordpiece"
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        self.word_rule = word_rule
        self._entries, self._content = entries, content
        self.vocab_size = len(entries)
        role_ids = [ids[token] for token in special_tokens_in(path, ids, SPECIAL_TOKENS)]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = role_ids
        self.layout = bert_layout(self.cls_id, self.sep_id)
        self.special_ids = np.array(role_ids, np.int32)
        self.starts_word = np.array([_starts_word(entry, word_rule) for entry in entries])
        self.starts_word[self.special_ids] = False
        # In files null where it follows `do_lower_case`, as in `transformers`.
        self._saved_strip_accents = None if self.strip_accents == lowercase else strip_accents
        self.fingerprint = wordpiece_fingerprint(content, lowercase, strip_accents, registered)
        model = models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=MAX_WORD_CHARACTERS)
        self._engine = _engine(model, lowercase, self._saved_strip_accents)
        self.registered: Sequence[AddedToken] = list(registered)
        add_registered(self._engine, path, self.registered, SPECIAL_TOKENS)
        # A chunk must not end within a registered token.
        self._one_chunk = any(has_space(token.content) for token in registered)
        self._marks = CharacterCounts(loses_mark)
        self._clear_cache()

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> "WordPiece":
        """Train a vocabulary: the same texts give the same bytes.

        The trainer of `tokenizers` alone does not: it numbers the characters in the order of a hash
        map and breaks ties by those numbers. Characters that are given as "special" tokens are
        numbered first and in the given order, so here all are.
        """
        # A character may need two entries: one to begin a word and one to continue a word.
        limit = (config.vocab_size - len(SPECIAL_TOKENS)) // 2
        check(
            limit > 0,
            where="tokenizer.vocab_size",
            found=config.vocab_size,
            expected=f"{len(SPECIAL_TOKENS) + 2} or more: the special tokens, and a character that"
            " begins and one that continues a word",
        )
        sentences = list(texts)
        engine = _engine(models.WordPiece(unk_token=UNK), config.lowercase, config.strip_accents)
        alphabet, continuing = _characters(engine, sentences, limit)
        check(alphabet, where="tokenizer", found="no text to train on", expected="words")
        trainer = trainers.WordPieceTrainer(
            vocab_size=config.vocab_size,
            special_tokens=[*SPECIAL_TOKENS, *(CONTINUES + c for c in continuing)],
            initial_alphabet=alphabet,
            # No others: without a limit the trainer adds every character of the text.
            limit_alphabet=len(alphabet),
            min_frequency=2,  # a pair that occurs once says nothing about the language
            show_progress=False,
        )
        engine.train_from_iterator(sentences, trainer)
        vocabulary = engine.get_vocab()
        entries = sorted(vocabulary, key=vocabulary.__getitem__)
        content = "".join(f"{entry}\n" for entry in entries).encode()
        return cls("the trained vocabulary", content, config.lowercase, config.strip_accents)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens, offsets, _ = self.encode_counted(texts)
        return tokens, offsets

    def encode_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Losses]:
        # BERT's words never cross a space, so a chunk (the text between two spaces) always has the
        # same ids. Text repeats itself, so most chunks are found in the cache.
        if self._one_chunk:
            chunks_by_text = [[text] for text in texts]
        else:
            chunks_by_text = [text.split(" ") for text in texts]
        chunks = list(chain.from_iterable(chunks_by_text))
        numbers = np.fromiter(map(self._chunk_numbers.__getitem__, chunks), np.int64, len(chunks))
        if self._chunk_numbers.unseen:
            self._encode_unseen()
        begins, ends = self._begins[numbers], self._begins[numbers + 1]
        tokens = self._ids[ranges(begins, ends)]
        chunk_bounds = np.fromiter(
            accumulate(map(len, chunks_by_text), initial=0), np.int64, len(texts) + 1
        )
        offsets = np.concatenate([[0], np.cumsum(ends - begins)])[chunk_bounds]
        losses = Losses(_sum_of(self._unknown, numbers), _sum_of(self._stripped, numbers))
        # Whole texts hardly repeat themselves, and take more memory.
        if self._one_chunk or len(self._chunk_numbers) > CACHED_CHUNKS:
            self._clear_cache()
        return tokens, offsets, losses

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._engine.encode_batch(list(texts), add_special_tokens=False)
        return [token_begins(encoding.offsets) for encoding in encodings]

    def _clear_cache(self) -> None:
        # Chunk n has the ids _ids[_begins[n] : _begins[n + 1]], and _unknown[n] and _stripped[n]
        # are its `Losses`.
        self._chunk_numbers = _ChunkNumbers()
        self._begins, self._ids = np.zeros(1, np.int64), np.zeros(0, np.int32)
        self._unknown, self._stripped = np.zeros((2, 0), np.int64)

    def _encode_unseen(self) -> None:
        """Encode the chunks that were not seen before, and add them to the cache."""
        unseen = self._chunk_numbers.unseen
        # All new chunks together: the engine encodes them in parallel, without offsets.
        encodings = self._engine.encode_batch_fast(unseen, add_special_tokens=False)
        ids, offsets = flatten_ids([encoding.ids for encoding in encodings])
        self._begins = np.concatenate([self._begins, self._begins[-1] + offsets[1:]])
        self._ids = np.concatenate([self._ids, ids])
        self._unknown = np.concatenate([self._unknown, self._count_unknown(unseen, ids, offsets)])
        self._stripped = np.concatenate([self._stripped, self._count_stripped(unseen)])
        unseen.clear()

    def _count_unknown(
        self, chunks: Sequence[str], ids: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """Count the characters in [UNK] of each chunk, whose ids are given."""
        counts = np.zeros(len(chunks), np.int64)
        unknown_ids = count_by_text(ids == self.unk_id, offsets)
        is_whole = unknown_ids == np.diff(offsets)
        # Most are unknown as a whole, and need no second look of the engine.
        for number in np.flatnonzero((unknown_ids > 0) & is_whole).tolist():
            counts[number] = len("".join(chunks[number].split()))
        in_part = np.flatnonzero((unknown_ids > 0) & ~is_whole).tolist()
        encodings = self._engine.encode_batch(
            [chunks[number] for number in in_part], add_special_tokens=False
        )
        for number, encoding in zip(in_part, encodings, strict=True):
            # A word has no white space in it.
            for i, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if i == self.unk_id:
                    counts[number] += end - begin
        return counts

    def _count_stripped(self, chunks: Sequence[str]) -> np.ndarray:
        """Count the characters of each chunk that lose a mark."""
        counts = np.zeros(len(chunks), np.int64)
        if not self.strip_accents:
            return counts
        for number, chunk in enumerate(chunks):
            if chunk.isascii():
                continue
            for token in self.registered:
                chunk = chunk.replace(token.content, "")
            counts[number] = self._marks.total(chunk)
        return counts

    def unread(self, texts: Sequence[str]) -> np.ndarray | None:
        return None

    def encode_with_masks(self, text: str) -> np.ndarray:
        # Text around a mask is encoded by itself: the engine knows no mask, so that text cannot
        # spell it.
        first, *others = [self.encode_batch([part])[0] for part in text.split(MASK)]
        joined = [first]
        for part in others:
            joined += [np.array([self.mask_id], np.int32), part]
        return np.concatenate(joined)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._entries[i] for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return self._engine.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        post_processor = bert_post_processor((CLS, self.cls_id), (SEP, self.sep_id))
        engine = engine_json(self._engine, SPECIAL_TOKENS, post_processor)
        settings = {
            "tokenizer_class": "BertTokenizer",
            "tokenize_chinese_chars": True,
            "strip_accents": self._saved_strip_accents,
            **registered_settings(self._engine, self.registered),
        }
        save_files(
            folder,
            self.kind,
            self.lowercase,
            {FILE: self._content, ENGINE_FILE: engine},
            settings=settings,
            model_max_length=model_max_length,
            word_rule=self.word_rule,
        )


class _ChunkNumbers(dict[str, int]):
    """Numbers of chunks, given in the order in which they are first asked for.

    `unseen` are the chunks that got a number since it was last cleared.
    """

    def __init__(self) -> None:
        self.unseen: list[str] = []

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        self.unseen.append(text)
        return number


def _engine(model: models.WordPiece, lowercase: bool, strip_accents: bool | None) -> Engine:
    engine = Engine(model)
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix=CONTINUES)
    return engine


def _starts_word(entry: str, word_rule: int) -> bool:
    if not entry.startswith(CONTINUES):
        return True
    return word_rule > FIRST_RULE and begins_unspaced(entry.removeprefix(CONTINUES))


def _characters(
    engine: Engine, sentences: Sequence[str], limit: int
) -> tuple[list[str], list[str]]:
    """The `limit` most frequent characters, and those of them that continue words; both sorted."""
    chunks: Counter[str] = Counter()
    for sentence in sentences:
        chunks.update(engine.normalizer.normalize_str(sentence).split(" "))
    counts: Counter[str] = Counter()
    inside_words: set[str] = set()
    for chunk, count in chunks.items():
        # Words as the engine itself finds them: a continuing character that is missed here would be
        # numbered by the trainer's hash map again.
        for word, _ in engine.pre_tokenizer.pre_tokenize_str(chunk):
            inside_words.update(word[1:])
            for character in word:
                counts[character] += count
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted(by_frequency[:limit])
    return alphabet, [character for character in alphabet if character in inside_words]


def _sum_of(counts: np.ndarray, numbers: np.ndarray) -> int:
    # Of English text nothing is lost: a look at the few chunks spares one at each of the text's.
    return int(counts[numbers].sum()) if counts.any() else 0
