"""What a SentencePiece model file says beyond its own package's interface, and the same model in
`tokenizers`.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

WORD = "▁"
UNIGRAM, BPE = 1, 2
# Field numbers of sentencepiece_model.proto. The package's own reader of it needs a newer protobuf
# than other requirements here allow, and the format is three lines.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_NAME, _SCORE, _TYPE = 1, 2, 3
_NORMAL, _USER_DEFINED, _UNUSED, _BYTE = 1, 4, 5, 6


class Piece(NamedTuple):
    """An entry of a model's vocabulary; `type` as in the format: 1 an ordinary piece, 4 defined by
    a user.
    """

    name: str
    score: float
    type: int


class Model(NamedTuple):
    """What a model file holds: its entries, how it treats text before it looks for them, and by
    which algorithm.
    """

    pieces: list[Piece]
    algorithm: int
    unk_id: int
    rule_name: str
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_model(content: bytes) -> Model:
    """A model file that SentencePiece has opened. What a file leaves out has the format's default."""
    top = {number: value for number, value in _fields(content) if number != _PIECES}
    trainer, normalizer = (
        dict(_fields(top.get(_TRAINER, b""))),
        dict(_fields(top.get(_NORMALIZER, b""))),
    )
    return Model(
        [_piece(value) for number, value in _fields(content) if number == _PIECES],
        trainer.get(3, UNIGRAM),
        trainer.get(40, 0),
        normalizer.get(1, b"").decode(),
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def with_scores(content: bytes, score_of: Callable[[Piece], float]) -> bytes:
    """The model file with other scores, which are kept in float32."""
    out = []
    for number, value in _fields(content):
        if number == _PIECES:
            value += bytes([_SCORE << 3 | 5]) + struct.pack(
                "<f", score_of(_piece(value))
            )  # of two, the last counts
        out.append(_varint(number << 3 | 2) + _varint(len(value)) + value)
    return b"".join(out)


def with_exact_scores(content: bytes) -> bytes:
    """The model file with scores rounded to 1/1024, whose sums are exact in float32, down to
    -16384.

    SentencePiece adds in float32, `tokenizers` in float64. Where cuts score alike, as of a line of
    equal signs, they agree on the best one only if nothing is rounded.
    """
    return with_scores(content, lambda piece: round(piece.score * 1024) / 1024)


def engine_of(model: Model, before: Sequence[normalizers.Normalizer] = ()) -> Engine:
    """The model in `tokenizers`, which gives the same ids but for what follows; for Unigram and BPE
    only.

    `before` is done to text first. `tokenizers` replaces a character together with the marks that
    follow it, if all lie within five bytes; a mark that does not compose with it is lost there.
    Composing first keeps accents. Of two cuts that score alike it may take the other one, unless
    the scores are those of `with_exact_scores`. Its Unigram has no piece that text cannot become,
    so text that spells a special token becomes it.
    """
    ids = {piece.name: i for i, piece in enumerate(model.pieces)}
    has_bytes = any(piece.type == _BYTE for piece in model.pieces)
    if model.algorithm == UNIGRAM:
        engine = Engine(
            models.Unigram(_scored(model.pieces), unk_id=model.unk_id, byte_fallback=has_bytes)
        )
    else:
        unk = model.pieces[model.unk_id].name
        merges = _merges(model.pieces, ids)
        engine = Engine(
            models.BPE(ids, merges, unk_token=unk, fuse_unk=True, byte_fallback=has_bytes)
        )
    steps = list(before)
    if model.charsmap:
        steps += [normalizers.NFC()] if "nfkc" in model.rule_name else []
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(" +$"), "")]
    engine.normalizer = normalizers.Sequence(steps)
    # "first" takes a text's first piece by its place in the text, which is another once `before`
    # has cut a quote.
    scheme: Literal["always", "first", "never"] = "always" if before else "first"
    scheme = scheme if model.add_dummy_prefix else "never"
    engine.pre_tokenizer = pre_tokenizers.Metaspace(WORD, prepend_scheme=scheme, split=False)
    engine.decoder = decoders.Metaspace(WORD, prepend_scheme=scheme)
    return engine


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _scored(pieces: list[Piece]) -> list[tuple[str, float]]:
    """Each piece with its score. SentencePiece takes what a user defined before any cut, and no
    unused piece.
    """
    scores = [piece.score for piece in pieces if piece.type == _NORMAL]
    best, worst = max(scores, default=0.0), min(scores, default=0.0)
    instead = {
        _USER_DEFINED: lambda piece: _float32(len(piece.name) * best - 0.1),
        _UNUSED: lambda piece: worst - 1e4,
    }
    return [(p.name, instead[p.type](p) if p.type in instead else p.score) for p in pieces]


def _merges(pieces: list[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that make a piece, the best-scored first."""
    found = []
    for name, score, kind in pieces:
        if kind in (_NORMAL, _USER_DEFINED):
            pairs = ((name[:cut], name[cut:]) for cut in range(1, len(name)))
            found += [
                (-score, ids[name], ids[a], (a, b)) for a, b in pairs if a in ids and b in ids
            ]
    return [pair for *_, pair in sorted(found)]


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    return Piece(fields[_NAME].decode(), fields.get(_SCORE, 0.0), fields.get(_TYPE, _NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message's fields: int, float or bytes by their wire type."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _read_varint(message, at)
        elif wire == 5:
            value, at = struct.unpack_from("<f", message, at)[0], at + 4
        elif wire == 1:
            value, at = message[at : at + 8], at + 8
        else:
            size, at = _read_varint(message, at)
            value, at = message[at : at + size], at + size
        yield number, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
