"""SentencePiece, unigram and BPE, by its own package."""

import io
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
import sentencepiece as spm
from etils import epath

from bertjax.config import TokenizerConfig
from bertjax.data.vocabulary import MASK, SPECIAL_TOKENS, fingerprint, save_files, special_ids_of
from bertjax.errors import UserError

FILE = "spiece.model"
WORD = "▁"
# After a space; or, in the scripts of East and South-East Asia that have none, each piece.
_STARTS_WORD = re.compile(
    WORD + "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
)
STAND_IN = "\ue000"  # of the private use area: no text has it, no model knows it


class SentencePiece:
    """A `Tokenizer` over a SentencePiece model."""

    def __init__(self, path: object, content: bytes, kind: str, lowercase: bool):
        """`content` is the model file's bytes, `path` its name for errors."""
        try:
            self._model = spm.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path}: found no SentencePiece model ({' '.join(str(error).split())})") from error
        self._content, self._kind, self._lowercase = content, kind, lowercase
        self.vocab_size = self._model.vocab_size()
        every = range(self.vocab_size)
        entries = self._model.id_to_piece(list(every))
        ids = {entry: i for i, entry in enumerate(entries)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = named = special_ids_of(path, ids)
        control = [i for i in every if self._model.is_control(i) or self._model.is_unknown(i)]
        self.special_ids = np.array(sorted({*named, *control}), np.int32)
        self.starts_word = np.array([bool(_STARTS_WORD.match(entry)) for entry in entries])
        self.starts_word[self.special_ids] = False
        self.fingerprint = fingerprint(kind, lowercase, content)

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
            raise UserError(f"tokenizer: found too little text for {config.vocab_size} pieces ({reason})") from error
        return cls("the trained model", model.getvalue(), config.kind, config.lowercase)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._model.encode(list(texts), num_threads=1)
        offsets = np.fromiter(accumulate(map(len, rows), initial=0), np.int64, len(rows) + 1)
        return np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets

    def encode_begins(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._model.encode(list(texts), out_type="offset_mapping")
        return [[begin for begin, _ in encoded["offsets"]] for encoded in found]

    def encode_with_masks(self, text: str) -> np.ndarray:
        pieces = self._model.encode(text.replace(MASK, STAND_IN), out_type=str)
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
        shown = [f" {p} " if i in special else p for i, p in zip(ids, self.pieces(ids), strict=True)]
        return " ".join("".join(shown).replace(WORD, " ").split())

    def save(self, folder: epath.PathLike) -> None:
        save_files(folder, self._kind, self._lowercase, FILE, self._content)
