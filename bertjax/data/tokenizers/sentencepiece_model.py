"""Reader and writer of SentencePiece model files.

Covers what SentencePiece's own package does not offer: scores, types, normalization rules.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

WORD = "▁"  # stands for the space before a word
ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
UNIGRAM, BPE = 1, 2
# Field numbers of sentencepiece_model.proto. The package's own reader of it needs a newer protobuf
# than other requirements here allow, and the format is a few lines.
# See github.com/google/sentencepiece, src/sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_NAME, _SCORE, _TYPE = 1, 2, 3
_ALGORITHM, _SPACE_AS_SUFFIX, _BYTE_FALLBACK, _UNK_ID = 3, 24, 35, 40
_RULE_NAME, _CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACES, _ESCAPE_WHITESPACES = 1, 2, 3, 4, 5
# Types of entries. The other one: 2 unknown.
NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
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
    escape_whitespaces: bool
    """True if a space becomes `WORD`."""
    treat_whitespace_as_suffix: bool
    """True if `WORD` ends a word."""
    byte_fallback: bool
    """True if the bytes of unknown text are its pieces."""

    @property
    def symbols(self) -> list[str]:
        """The symbols that the model's user defined."""
        return [piece.name for piece in self.pieces if piece.type == USER_DEFINED]


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
        escape_whitespaces=bool(normalizer.get(_ESCAPE_WHITESPACES, 1)),
        treat_whitespace_as_suffix=bool(trainer.get(_SPACE_AS_SUFFIX, 0)),
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
    )


def with_scores(content: bytes, score_of: Callable[[Piece], float]) -> bytes:
    """Return the model file with other scores, rounded to float32 as the format has them."""

    def score(_: int, piece: bytes) -> bytes:
        return bytes([_SCORE << 3 | _FLOAT]) + struct.pack("<f", score_of(_piece(piece)))

    return _with_fields(content, score)


def with_symbol(content: bytes, id: int, name: str) -> bytes:
    """Return the model file in which an entry has another name and is a user-defined symbol."""
    encoded = name.encode()
    symbol = bytes([_NAME << 3 | _BYTES]) + _varint(len(encoded)) + encoded
    symbol += bytes([_TYPE << 3 | _VARINT, USER_DEFINED])
    return _with_fields(content, lambda i, _: symbol if i == id else b"")


def with_control_piece(content: bytes, name: str) -> bytes:
    """Return the model file with one more entry, which no text becomes."""
    encoded = name.encode()
    fields = bytes([_NAME << 3 | _BYTES]) + _varint(len(encoded)) + encoded
    fields += bytes([_SCORE << 3 | _FLOAT]) + struct.pack("<f", 0.0)
    fields += bytes([_TYPE << 3 | _VARINT, CONTROL])
    return content + bytes([_PIECES << 3 | _BYTES]) + _varint(len(fields)) + fields


def _with_fields(content: bytes, fields_of: Callable[[int, bytes], bytes]) -> bytes:
    """The model file with further fields of each entry, which `fields_of` its id and itself are.

    If a field occurs twice, protobuf uses the last value.
    """
    fields: list[bytes] = []
    id = 0
    for number, value in _fields(content):
        if number == _PIECES:
            value += fields_of(id, value)
            id += 1
        fields.append(_varint(number << 3 | _BYTES) + _varint(len(value)) + value)
    return b"".join(fields)


def with_exact_scores(content: bytes) -> bytes:
    """Return the model file with scores rounded to 1/1024.

    SentencePiece adds scores in float32, `tokenizers` in float64. If several segmentations have
    equal scores (for example in a line of equal signs), both choose the same one only if no sum is
    rounded. Multiples of 1/1024 down to -16384 fit the 24 bits of float32.
    """
    return with_scores(content, _exact_score)


def has_exact_sums(model: Model) -> bool:
    """Return True for BPE, which adds no scores, and for the scores of `with_exact_scores`."""
    return model.algorithm != UNIGRAM or all(
        piece.score == _exact_score(piece) for piece in model.pieces if piece.type == NORMAL
    )


def _exact_score(piece: Piece) -> float:
    return round(piece.score * 1024) / 1024


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    return Piece(fields[_NAME].decode(), fields.get(_SCORE, 0.0), fields.get(_TYPE, NORMAL))


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
