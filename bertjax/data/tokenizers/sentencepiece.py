"""SentencePiece, unigram and BPE, by its own package."""

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
import sentencepiece as spm
from etils import epath
from tokenizers import normalizers

from bertjax.config import TokenizerConfig, TokenizerKind
from bertjax.data.tokenizers import sentencepiece_model
from bertjax.data.tokenizers.sentencepiece_model import WORD
from bertjax.data.tokenizers.vocabulary import (
    ALBERT_TOKENS,
    ENGINE_FILE,
    MASK,
    SPECIAL_TOKENS,
    bert_ends,
    engine_json,
    fingerprint,
    save_files,
    special_tokens_in,
)
from bertjax.errors import UserError, check

FILE = "spiece.model"
# After a space; or, in the scripts of East and South-East Asia that have none, each piece.
_STARTS_WORD = re.compile(
    WORD
    + "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
)
CLEANINGS = ("", "albert")
NEXT_LINE = "\x85"  # the one space that ALBERT splits at and SentencePiece's rules leave
# ALBERT cuts a comma off the digits before it; a piece that holds both is made too dear to take, as
# in `transformers`.
COMMA_PENALTY = 100.0
_COMMA_AFTER_DIGIT = re.compile(r"\d,$")
_QUOTES_OR_ANY = re.compile("``|''|.", re.DOTALL)
STAND_IN = "\ue000"  # of the private use area: no text has it, no model knows it


class SentencePiece:
    """A `Tokenizer` over a SentencePiece model."""

    def __init__(
        self, path: object, content: bytes, kind: TokenizerKind, lowercase: bool, cleaning: str = ""
    ):
        """`content` is the model file's bytes, `path` its name for errors.

        `cleaning` is what is done to text before the model sees it: "albert", or empty for nothing.
        """
        check(
            cleaning in CLEANINGS,
            where=f"{path}: text_cleaning",
            found=repr(cleaning),
            expected="one of " + ", ".join(map(repr, CLEANINGS)),
        )
        self.kind, self.lowercase = kind, lowercase
        self._content, self._cleaning = content, cleaning
        self._model = model = _opened(path, content)
        self.vocab_size = model.vocab_size()
        every = range(self.vocab_size)
        entries = model.id_to_piece(list(every))
        if cleaning:
            self._model = _opened(path, sentencepiece_model.with_scores(content, _albert_score))
        ids = {entry: i for i, entry in enumerate(entries)}
        self._special = special_tokens_in(path, ids, SPECIAL_TOKENS, ALBERT_TOKENS)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = named = [
            ids[t] for t in self._special
        ]
        control = [i for i in every if model.is_control(i) or model.is_unknown(i)]
        self.special_ids = np.array(sorted({*named, *control}), np.int32)
        self.starts_word = np.array([bool(_STARTS_WORD.match(entry)) for entry in entries])
        self.starts_word[self.special_ids] = False
        self.fingerprint = fingerprint(kind, lowercase, content + cleaning.encode())

    @classmethod
    def train(cls, config: TokenizerConfig, texts: Iterable[str]) -> "SentencePiece":
        """A new model; one thread, since sums over several differ in their last digits."""
        model = io.BytesIO()
        pad, unk, *control = SPECIAL_TOKENS
        try:
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                vocab_size=config.vocab_size,
                model_type=config.kind,
                pad_id=0,
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                pad_piece=pad,
                unk_piece=unk,
                control_symbols=control,
                normalization_rule_name="nmt_nfkc_cf" if config.lowercase else "nmt_nfkc",
                hard_vocab_limit=False,
                max_sentence_length=1 << 20,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"tokenizer: found too little text for {config.vocab_size} pieces ({reason})"
            ) from error
        content = model.getvalue()
        if config.kind == "unigram":
            content = sentencepiece_model.with_exact_scores(content)
        return cls("the trained model", content, config.kind, config.lowercase)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._model.encode([self._clean(text)[0] for text in texts], num_threads=1)
        offsets = np.fromiter(accumulate(map(len, rows), initial=0), np.int64, len(rows) + 1)
        return np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [self._clean(text) for text in texts]
        found = self._model.encode([text for text, _ in cleaned], out_type="offset_mapping")
        begins = [[begin for begin, _ in encoded["offsets"]] for encoded in found]
        return [
            [at[i] for i in row] if at else row
            for row, (_, at) in zip(begins, cleaned, strict=True)
        ]

    def encode_with_masks(self, text: str) -> np.ndarray:
        pieces = self._model.encode(self._clean(text.replace(MASK, STAND_IN))[0], out_type=str)
        ids: list[int] = []
        for piece, after in zip(pieces, [*pieces[1:], ""], strict=False):
            if STAND_IN in piece:
                ids += [self.mask_id] * piece.count(STAND_IN)
            elif not (piece == WORD and STAND_IN in after):  # a masked word brings its own space
                ids.append(self._model.piece_to_id(piece))
        return np.array(ids, np.int32)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return self._model.id_to_piece([int(i) for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        special, ids = set(self.special_ids.tolist()), [int(i) for i in ids]
        shown = [
            f" {p} " if i in special else p for i, p in zip(ids, self.pieces(ids), strict=True)
        ]
        return " ".join("".join(shown).replace(WORD, " ").split())

    def save(self, folder: epath.PathLike, model_max_length: int | None = None) -> None:
        """Write the folder; `tokenizer.json` with it for Unigram and BPE, the algorithms that
        `tokenizers` has.
        """
        settings: dict[str, object] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        }
        if self._cleaning:
            settings["text_cleaning"] = self._cleaning
        files = {FILE: self._content}
        model = sentencepiece_model.read_model(self._model.serialized_model_proto())
        if model.algorithm in (sentencepiece_model.UNIGRAM, sentencepiece_model.BPE):
            engine = sentencepiece_model.engine_of(model, self._cleaning_steps())
            ends = bert_ends(self._special, self.cls_id, self.sep_id)
            files[ENGINE_FILE] = engine_json(engine, self._special, ends)
        save_files(
            folder, self.kind, self.lowercase, files, self._special, settings, model_max_length
        )

    def _clean(self, text: str) -> tuple[str, list[int]]:
        """What the model is to see, and where in `text` each of its characters comes from; [] if it
        is `text`.

        For "albert" (github.com/google-research/albert, tokenization.py): quotes of two characters
        become one, accents go and, uncased, capitals too. As `transformers` has it, every combining
        mark is an accent.
        """
        if not self._cleaning:
            return text, []
        out, at = [], []
        for found in _QUOTES_OR_ANY.finditer(text):
            one = '"' if len(found[0]) == 2 else unicodedata.normalize("NFKD", found[0])
            kept = [c for c in one if not unicodedata.category(c).startswith("M")]
            kept = [" " if c == NEXT_LINE else c for c in kept]
            kept = [low for c in kept for low in (c.lower() if self.lowercase else c)]
            out += kept
            at += [found.start()] * len(kept)
        return "".join(out), [*at, len(text)]

    def _cleaning_steps(self) -> list[normalizers.Normalizer]:
        """`_clean` in `tokenizers`."""
        if not self._cleaning:
            return []
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        case = [normalizers.Lowercase()] if self.lowercase else []
        return [
            *quotes,
            normalizers.Replace(NEXT_LINE, " "),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            *case,
        ]


def _albert_score(piece: sentencepiece_model.Piece) -> float:
    return piece.score - (COMMA_PENALTY if _COMMA_AFTER_DIGIT.search(piece.name) else 0.0)


def _opened(path: object, content: bytes) -> spm.SentencePieceProcessor:
    try:
        return spm.SentencePieceProcessor(model_proto=content)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: found no SentencePiece model ({' '.join(str(error).split())})"
        ) from error
