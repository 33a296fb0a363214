"""SentencePiece, unigram and BPE (arXiv 1808.06226), by its own package."""

import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import sentencepiece as spm
from etils import epath
from tokenizers import AddedToken

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.row_layout import bert_layout
from bertjax.data.tokenizers import sentencepiece_model
from bertjax.data.tokenizers.letters import Letters
from bertjax.data.tokenizers.losses import CharacterCounts, Losses, count_by_text
from bertjax.data.tokenizers.sentencepiece_engine import (
    engine_of,
    engine_problem,
    spaces_problem,
)
from bertjax.data.tokenizers.sentencepiece_model import WORD
from bertjax.data.tokenizers.text_cleaning import (
    ALBERT,
    CLEANINGS,
    LOWERCASE,
    STRIP_ACCENTS,
    TextCleaning,
)
from bertjax.data.tokenizers.vocabulary import (
    ALBERT_TOKENS,
    ENGINE_FILE,
    MASK,
    ROLES,
    SPECIAL_TOKENS,
    bert_post_processor,
    engine_json,
    fingerprint,
    flatten_ids,
    save_files,
    special_tokens_in,
    token_begins,
)
from bertjax.data.tokenizers.word_starts import FIRST_RULE, WORD_RULE, begins_unspaced
from bertjax.errors import UserError, check, mismatch, one_line

FILE = "spiece.model"
# The first rule of `word_starts`: it matches a piece that begins a word. That is a piece after a
# space, or any piece in these scripts of East and South-East Asia.
_STARTS_WORD = re.compile(
    WORD
    + "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    + "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"  # kana, Chinese characters
)
# ALBERT separates a comma from the digits before it. A piece that holds both gets a score so low
# that it is never chosen, as in `transformers`.
COMMA_PENALTY = 100.0
_COMMA_AFTER_DIGIT = re.compile(r"\d,$")
_SPACES_AND_MASK = re.compile(r"\s+" + re.escape(MASK))
MAX_SENTENCE_BYTES = 1 << 20
"""Sentences that are longer are left out of the training, because the trainer asks for a limit."""
# What the trainer's trainer_interface.cc says where a vocabulary is too small, and the conditions
# that it quotes where it has no sentence, or only white space.
_NEEDED_PIECES = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_NO_TEXT = ("!sentences_.empty()", "(all_chars_count) > (0)")
# For [MASK], and for itself in a text. Of the private use area, which no model knows.
STAND_IN, _OTHER_UNKNOWN = "\ue000", "\ue001"


class SentencePiece:
    """A `Tokenizer` over a SentencePiece model."""

    def __init__(
        self,
        path: object,
        content: bytes,
        kind: TokenizerKind,
        lowercase: bool,
        cleaning: str = "",
        word_rule: int = WORD_RULE,
    ):
        """Take the model file's bytes; `path` is its name for errors.

        `cleaning` is applied to text before the model sees it: one of `CLEANINGS`, of which the
        empty one is nothing. `lowercase` says what comes of text, by the cleaning or the model.
        """
        check(
            cleaning in CLEANINGS,
            where=f"{path}: text_cleaning",
            found=repr(cleaning),
            expected="one of " + ", ".join(map(repr, CLEANINGS)),
        )
        self.kind, self.lowercase, self.word_rule = kind, lowercase, word_rule
        self._content, self._cleaning = content, TextCleaning(cleaning, lowercase)
        self.strip_accents = self._cleaning.strip_accents
        # The model has symbols of the user instead.
        self.registered: Sequence[AddedToken] = ()
        self._marks = CharacterCounts(self._cleaning.loses_mark)
        model = _open_model(path, content)
        self.vocab_size = model.vocab_size()
        all_ids = range(self.vocab_size)
        entries = model.id_to_piece(list(all_ids))
        self._model = model
        # The file keeps its scores; only the model that encodes gets the changed ones.
        if cleaning == ALBERT:
            self._model = _open_model(path, sentencepiece_model.with_scores(content, _albert_score))
        ids = {entry: i for i, entry in enumerate(entries)}
        self._special = special_tokens_in(path, ids, SPECIAL_TOKENS, ALBERT_TOKENS)
        role_ids = [ids[token] for token in self._special]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = role_ids
        self.layout = bert_layout(self.cls_id, self.sep_id)
        control = [i for i in all_ids if model.is_control(i) or model.is_unknown(i)]
        self.special_ids = np.array(sorted({*role_ids, *control}), np.int32)
        self.starts_word = np.array([_starts_word(entry, word_rule) for entry in entries])
        self.starts_word[self.special_ids] = False
        self.fingerprint = fingerprint(kind, lowercase, content + cleaning.encode())

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> "SentencePiece":
        """Train a model; the same texts give the same bytes."""
        model = io.BytesIO()
        pad, unk, *control = SPECIAL_TOKENS
        # The model itself folds case.
        letters = Letters(lowercase=False, strip_accents=bool(config.strip_accents))
        if letters.strip_accents:
            texts = (text.translate(letters) for text in texts)
        try:
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                vocab_size=config.vocab_size,
                model_type=config.kind,
                # With the control symbols after them, the special tokens have the ids 0 to 4, as in
                # WordPiece.
                pad_id=0,
                unk_id=1,
                bos_id=-1,  # no such pieces: BERT has [CLS] and [SEP]
                eos_id=-1,
                pad_piece=pad,
                unk_piece=unk,
                control_symbols=control,  # pieces that no text becomes
                # NFKC with the rules of neural machine translation; "cf" folds case.
                normalization_rule_name="nmt_nfkc_cf" if config.lowercase else "nmt_nfkc",
                hard_vocab_limit=False,  # a small corpus may give fewer pieces
                max_sentence_length=MAX_SENTENCE_BYTES,
                num_threads=1,  # sums over several threads differ in their last digits
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise _training_error(error, config.vocab_size) from error
        content = model.getvalue()
        if config.kind == "unigram":
            # So that `tokenizer.json` gives the same ids where segmentations score alike.
            content = sentencepiece_model.with_exact_scores(content)
        cleaning = STRIP_ACCENTS if config.strip_accents else ""
        return cls("the trained model", content, config.kind, config.lowercase, cleaning)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        cleaned = self._cleaning.clean_all(texts)
        # One thread: `prepare` has a worker for each core already.
        return flatten_ids(self._model.encode(cleaned, num_threads=1))

    def encode_counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, Losses]:
        tokens, offsets = self.encode_batch(texts)
        unknown = stripped = 0
        unknown_tokens = count_by_text(tokens == self.unk_id, offsets)
        for number in np.flatnonzero(unknown_tokens).tolist():
            unknown += self._count_unknown(texts[number])
        if self.strip_accents:
            stripped = sum(self._marks.total(text) for text in texts if not text.isascii())
        return tokens, offsets, Losses(unknown, stripped)

    def _count_unknown(self, text: str) -> int:
        """Count the characters of a text that are in unknown pieces, white space aside."""
        cleaned = self._cleaning.clean(text)
        encoding = self._model.encode(cleaned.text, out_type="offset_mapping")
        count = 0
        for i, (begin, end) in zip(encoding["ids"], encoding["offsets"], strict=True):
            if i == self.unk_id:
                if cleaned.begins is not None:
                    begin, end = cleaned.begins[begin], cleaned.begins[end]
                count += len("".join(text[begin:end].split()))
        return count

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [self._cleaning.clean(text) for text in texts]
        encodings = self._model.encode([c.text for c in cleaned], out_type="offset_mapping")
        begins_by_text: list[list[int]] = []
        for source, encoding in zip(cleaned, encodings, strict=True):
            begins = token_begins(encoding["offsets"])
            if source.begins is not None:
                begins = [source.begins[i] for i in begins]
            begins_by_text.append(begins)
        return begins_by_text

    def unread(self, texts: Sequence[str]) -> np.ndarray | None:
        return None

    def encode_with_masks(self, text: str) -> np.ndarray:
        if not self._parsed.remove_extra_whitespaces:
            text = _SPACES_AND_MASK.sub(MASK, text)
        begins_with_mask = text.startswith(MASK)
        text = text.replace(STAND_IN, _OTHER_UNKNOWN).replace(MASK, STAND_IN)
        ids = np.array(self._mask_model.encode(self._cleaning.clean(text).text), np.int32)
        # A single space before a mask is left out, because a masked word includes its space. That
        # of the begin of a text is the only one where they are left out before already.
        left_out = (ids == self._model.piece_to_id(WORD)) & (ids != self.unk_id)
        left_out &= np.append(ids[1:] == self.mask_id, False)
        if not self._parsed.remove_extra_whitespaces:
            left_out[1:] = False
            left_out[:1] &= begins_with_mask
        return ids[~left_out]

    @cached_property
    def _mask_model(self) -> spm.SentencePieceProcessor:
        """The model in which `STAND_IN` is a symbol with the id of the mask."""
        content = self._model.serialized_model_proto()
        symbol = sentencepiece_model.with_symbol(content, self.mask_id, STAND_IN)
        return _open_model("the model", symbol)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return self._model.id_to_piece([int(i) for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        ids = [int(i) for i in ids]
        special_ids = set(self.special_ids.tolist())
        text = ""
        for i, piece in zip(ids, self.pieces(ids), strict=True):
            text += f" {piece} " if i in special_ids else piece
        return " ".join(text.replace(WORD, " ").split())

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        """Write the folder, with `tokenizer.json` if `tokenizers` can express the model."""
        settings: dict[str, object] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        }
        if self._cleaning.name:
            settings["text_cleaning"] = self._cleaning.name
        files = {FILE: self._content}
        model = self._parsed
        if engine_problem(model) is None:
            engine = engine_of(model, self._cleaning.normalizers())
            post_processor = bert_post_processor(*self._ends())
            # The space before a mask is left out: there, or with the spaces at a part's end.
            absorbs = not model.remove_extra_whitespaces
            files[ENGINE_FILE] = engine_json(engine, self._special, post_processor, absorbs)
        save_files(
            folder,
            self.kind,
            self.lowercase,
            files,
            self._special,
            settings,
            model_max_length,
            self.word_rule,
        )

    def role_pieces(self) -> list[str]:
        """Return the names of the special tokens, in the order of `ROLES`."""
        return list(self._special)

    def _ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The tokens before and after a text, with their ids."""
        names = dict(zip(ROLES, self._special, strict=True))
        return (names["cls"], self.cls_id), (names["sep"], self.sep_id)

    def check_word_starts(self, path: object) -> None:
        """Raise `UserError`, naming `path`, where no piece shows that it begins a word.

        Models that are opened are checked. Folders that earlier versions saved load as they did.
        """
        problem = spaces_problem(self._parsed)
        check(
            problem is None,
            where=str(path),
            found=f"a model of {problem}",
            expected=f"one with {WORD} before each word, for whole words",
        )

    def export_problem(self) -> str | None:
        """Return what in the model `tokenizer.json` cannot express; None if it gives its ids."""
        return engine_problem(self._parsed)

    def symbol_ids(self) -> list[int]:
        """Return the ids of the symbols that the model's user defined."""
        types = [piece.type for piece in self._parsed.pieces]
        return [i for i, kind in enumerate(types) if kind == sentencepiece_model.USER_DEFINED]

    def has_exact_scores(self) -> bool:
        """Return True if equal sums of scores are equal in any program; see `with_exact_scores`."""
        return sentencepiece_model.has_exact_sums(self._parsed)

    @cached_property
    def _parsed(self) -> sentencepiece_model.Model:
        """The model with the scores that it encodes with."""
        return sentencepiece_model.read_model(self._model.serialized_model_proto())


def check_model(path: object, content: bytes) -> None:
    """Raise `UserError`, naming `path`, unless these are the bytes of a model."""
    _open_model(path, content)


def letter_cleaning(path: object, content: bytes, config: TokenizerConfig) -> str:
    """Return the cleaning with which a model treats letters as `config` asks.

    A model may fold case by its own rules. Raises `UserError` where it does and must not.
    """
    folds_case = _open_model(path, content).normalize("A").endswith("a")
    check(
        config.lowercase or not folds_case,
        where="tokenizer.lowercase",
        found=False,
        expected=f"True, for {path} has rules that fold case",
    )
    steps = []
    if config.lowercase and not folds_case:
        steps.append(LOWERCASE)
    if config.strip_accents:
        steps.append(STRIP_ACCENTS)
    return " ".join(steps)


def _starts_word(entry: str, word_rule: int) -> bool:
    if word_rule == FIRST_RULE:
        return bool(_STARTS_WORD.match(entry))
    return entry.startswith(WORD) or begins_unspaced(entry)


def _albert_score(piece: sentencepiece_model.Piece) -> float:
    penalty = COMMA_PENALTY if _COMMA_AFTER_DIGIT.search(piece.name) else 0.0
    return piece.score - penalty


def _open_model(path: object, content: bytes) -> spm.SentencePieceProcessor:
    try:
        return spm.SentencePieceProcessor(model_proto=content)
    except (RuntimeError, OSError) as error:
        reason = one_line(error, limit=None)
        raise UserError(f"{path}: found no SentencePiece model ({reason})") from error


def _training_error(error: Exception, vocab_size: int) -> UserError:
    """Say why SentencePiece's trainer refuses."""
    reason = one_line(error, limit=None)
    needed = _NEEDED_PIECES.search(reason)
    if needed:
        return mismatch(
            where="tokenizer.vocab_size",
            found=vocab_size,
            expected=f"{needed[1]} or more: the special tokens and the characters of the text",
        )
    if any(condition in reason for condition in _NO_TEXT):
        return mismatch(
            where="tokenizer",
            found="no text to train on",
            expected=f"words, in sentences of {MAX_SENTENCE_BYTES:,} bytes or less",
        )
    return UserError(f"tokenizer: SentencePiece cannot be trained on this text ({reason})")
