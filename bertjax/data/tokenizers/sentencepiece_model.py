"""Reader and writer of SentencePiece model files, and the same model in `tokenizers`.

Covers what SentencePiece's own package does not offer: scores, types, normalization rules.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

WORD = "▁"  # stands for the space before a word
UNIGRAM, BPE = 1, 2
# Field numbers of sentencepiece_model.proto. The package's own reader of it needs a newer protobuf
# than other requirements here allow, and the format is a few lines.
# See github.com/google/sentencepiece, src/sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_NAME, _SCORE, _TYPE = 1, 2, 3
_ALGORITHM, _UNK_ID = 3, 40
_RULE_NAME, _CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACES = 1, 2, 3, 4
# Types of entries. The others: 2 unknown, 3 control.
_NORMAL, _USER_DEFINED, _UNUSED, _BYTE = 1, 4, 5, 6
# Wire types of protobuf: how a field's value is encoded.
# See https://protobuf.dev/programming-guides/encoding/.
_VARINT, _FIXED64, _BYTES, _FLOAT = 0, 1, 2, 5


class Piece(NamedTuple):
    """An entry of a model's vocabulary."""

    name: str
    score: float
    type: int
    """As in the format: 1 ordinary, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 a byte."""


class Model(NamedTuple):
    """Content of a model file: vocabulary, algorithm, and treatment of text before it."""

    pieces: list[Piece]
    algorithm: int
    unk_id: int
    rule_name: str
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_model(content: bytes) -> Model:
    """Parse a model file that SentencePiece has opened.

    Fields that the file leaves out have the format's defaults.
    """
    pieces: list[Piece] = []
    sections: dict[int, bytes] = {}
    for number, value in _fields(content):
        if number == _PIECES:
            pieces.append(_piece(value))
        else:
            sections[number] = value
    trainer = dict(_fields(sections.get(_TRAINER, b"")))
    normalizer = dict(_fields(sections.get(_NORMALIZER, b"")))
    return Model(
        pieces,
        algorithm=trainer.get(_ALGORITHM, UNIGRAM),
        unk_id=trainer.get(_UNK_ID, 0),
        rule_name=normalizer.get(_RULE_NAME, b"").decode(),
        charsmap=normalizer.get(_CHARSMAP, b""),
        add_dummy_prefix=bool(normalizer.get(_DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(normalizer.get(_EXTRA_WHITESPACES, 1)),
    )


def with_scores(content: bytes, score_of: Callable[[Piece], float]) -> bytes:
    """Return the model file with other scores, rounded to float32 as the format has them."""
    fields: list[bytes] = []
    for number, value in _fields(content):
        if number == _PIECES:
            # The new score is appended: if a field occurs twice, protobuf uses the last value.
            score = struct.pack("<f", score_of(_piece(value)))
            value += bytes([_SCORE << 3 | _FLOAT]) + score
        fields.append(_varint(number << 3 | _BYTES) + _varint(len(value)) + value)
    return b"".join(fields)


def with_exact_scores(content: bytes) -> bytes:
    """Return the model file with scores rounded to 1/1024.

    SentencePiece adds scores in float32, `tokenizers` in float64. If several segmentations have
    equal scores (for example in a line of equal signs), both choose the same one only if no sum is
    rounded. Multiples of 1/1024 down to -16384 fit the 24 bits of float32.
    """
    return with_scores(content, _exact_score)


def _exact_score(piece: Piece) -> float:
    return round(piece.score * 1024) / 1024


def engine_of(model: Model, before: Sequence[normalizers.Normalizer] = ()) -> Engine:
    """Return the model in `tokenizers`, for Unigram and BPE only.

    `before` is done to text first. It gives the same ids, with these exceptions:

    - `tokenizers` replaces a character together with the marks that follow it, if all lie within
      five bytes; a mark that does not compose with it is lost there. Composing first keeps accents.
    - Of two segmentations that score alike it may take the other one, unless the scores are those
      of `with_exact_scores`.
    - Its Unigram has no piece that text cannot become, so text that spells a special token becomes
      it.
    """
    has_bytes = any(piece.type == _BYTE for piece in model.pieces)
    if model.algorithm == UNIGRAM:
        scored = _scored(model.pieces)
        engine = Engine(models.Unigram(scored, unk_id=model.unk_id, byte_fallback=has_bytes))
    else:
        ids = {piece.name: i for i, piece in enumerate(model.pieces)}
        merges = _merges(model.pieces, ids)
        unk = model.pieces[model.unk_id].name
        engine = Engine(
            # Fused: SentencePiece makes one unknown piece of a run of unknown characters.
            models.BPE(ids, merges, unk_token=unk, fuse_unk=True, byte_fallback=has_bytes)
        )
    engine.normalizer = normalizers.Sequence([*before, *_normalizers(model)])
    scheme = _prepend_scheme(model, bool(before))
    engine.pre_tokenizer = pre_tokenizers.Metaspace(WORD, prepend_scheme=scheme, split=False)
    engine.decoder = decoders.Metaspace(WORD, prepend_scheme=scheme)
    return engine


def _normalizers(model: Model) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        if "nfkc" in model.rule_name:
            # See `engine_of`: the next step would lose marks that are not composed yet.
            steps.append(normalizers.NFC())
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        steps.append(normalizers.Replace(Regex(" +$"), ""))
    return steps


def _prepend_scheme(model: Model, cleaned: bool) -> Literal["always", "first", "never"]:
    """The texts and pieces before which a space is put, in the words of `tokenizers`."""
    if not model.add_dummy_prefix:
        return "never"
    # "first" finds a text's first piece by its position in the original text, which is another once
    # cleaning has shortened a quote.
    return "always" if cleaned else "first"


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _scored(pieces: list[Piece]) -> list[tuple[str, float]]:
    """Each piece with the score that makes `tokenizers` treat it as SentencePiece does.

    SentencePiece takes a user-defined piece before any other segmentation, by the score that its
    unigram_model.cc computes as here, and it never takes an unused one.
    """
    normal_scores = [piece.score for piece in pieces if piece.type == _NORMAL]
    best, worst = max(normal_scores, default=0.0), min(normal_scores, default=0.0)
    scored: list[tuple[str, float]] = []
    for piece in pieces:
        score = piece.score
        if piece.type == _USER_DEFINED:
            score = _float32(len(piece.name) * best - 0.1)
        elif piece.type == _UNUSED:
            score = worst - 1e4
        scored.append((piece.name, score))
    return scored


def _merges(pieces: list[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs of pieces that form a piece; the pairs of the piece with the best score first."""
    ranked = []
    for name, score, kind in pieces:
        if kind not in (_NORMAL, _USER_DEFINED):
            continue
        for i in range(1, len(name)):
            left, right = name[:i], name[i:]
            if left in ids and right in ids:
                # Pieces of equal scores by id, pairs of one piece by the left part's id.
                ranked.append((-score, ids[name], ids[left], (left, right)))
    ranked.sort()
    return [pair for *_, pair in ranked]


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    return Piece(fields[_NAME].decode(), fields.get(_SCORE, 0.0), fields.get(_TYPE, _NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message's fields: int, float or bytes by their wire type."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        value: Any
        if wire_type == _VARINT:
            value, position = _read_varint(message, position)
        elif wire_type == _FLOAT:
            (value,) = struct.unpack_from("<f", message, position)
            position += 4
        elif wire_type == _FIXED64:
            value = message[position : position + 8]
            position += 8
        else:
            size, position = _read_varint(message, position)
            value = message[position : position + size]
            position += size
        yield number, value


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The integer at `position`, seven bits a byte, lowest first; and the position after it."""
    value = shift = 0
    while message[position] & 0x80:
        value |= (message[position] & 0x7F) << shift
        position += 1
        shift += 7
    return value | message[position] << shift, position + 1


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
