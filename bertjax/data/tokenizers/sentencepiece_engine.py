"""A SentencePiece model in `tokenizers`, with the same ids for any text."""

import struct
from collections.abc import Sequence
from typing import Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.charsmap import longest_pattern
from bertjax.data.tokenizers.sentencepiece_model import (
    ALGORITHMS,
    BPE,
    BYTE,
    NORMAL,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
    WORD,
    Model,
    Piece,
)
from bertjax.data.tokenizers.sentencepiece_normalizer import (
    FIRST_PART,
    NO_SPACE,
    TEXT_BEGIN,
    normalizers_of,
    rules_problem,
)


def engine_problem(model: Model) -> str | None:
    """Return what in the model `tokenizers` cannot express; None if `engine_of` gives its ids."""
    if model.algorithm not in (UNIGRAM, BPE):
        name = ALGORITHMS.get(model.algorithm, model.algorithm)
        return f"SentencePiece's algorithm {name}"
    if model.treat_whitespace_as_suffix or not model.escape_whitespaces:
        return spaces_problem(model)
    problem = _bpe_problem(model) if model.algorithm == BPE else _unigram_problem(model)
    return problem or rules_problem(model)


def spaces_problem(model: Model) -> str | None:
    """Return the setting with which no piece shows that it begins a word; None if there is none."""
    if model.treat_whitespace_as_suffix:
        return "treat_whitespace_as_suffix"
    return None if model.escape_whitespaces else "escape_whitespaces false"


def engine_of(model: Model, before: Sequence[normalizers.Normalizer] = ()) -> Engine:
    """Return the model in `tokenizers`; `engine_problem` says which models have one.

    `before` is done to text first. It gives the same ids, with these exceptions:

    - Of two segmentations that score alike it may take the other one, unless the scores are those
      of `with_exact_scores`.
    - Its Unigram has no piece that text cannot become, so text that spells a special token becomes
      it.
    - Stand-ins of `sentencepiece_normalizer` in a text are one unknown character.
    """
    if model.algorithm == UNIGRAM:
        scored = _scored(model)
        engine = Engine(
            models.Unigram(scored, unk_id=model.unk_id, byte_fallback=model.byte_fallback)
        )
    else:
        ids = {piece.name: i for i, piece in enumerate(model.pieces)}
        unk = model.pieces[model.unk_id].name
        engine = Engine(
            models.BPE(
                ids,
                _merges(model.pieces, ids),
                unk_token=unk,
                # Fused: SentencePiece makes one unknown piece of a run of unknown characters.
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
                # A symbol is a word by itself, see `_words`. No merges lead to it.
                ignore_merges=bool(model.symbols),
            )
        )
    engine.normalizer = normalizers.Sequence(normalizers_of(model, before))
    engine.pre_tokenizer = _words(model)
    scheme: Literal["always", "never"] = "always" if model.add_dummy_prefix else "never"
    engine.decoder = decoders.Metaspace(WORD, prepend_scheme=scheme)
    if model.byte_fallback:
        engine.decoder = decoders.Sequence([decoders.ByteFallback(), engine.decoder])
    return engine


def _words(model: Model) -> pre_tokenizers.PreTokenizer:
    """The begin of a text or part, and cuts around the symbols of a BPE model; there are no others.

    Each part begins with `TEXT_BEGIN` and a space. They go, but where the model puts a space before
    a text, that of the first part stays. With `remove_extra_whitespaces` the first part has no
    other: of two spaces one goes, and a space that is all.
    """
    begin, spaces = TEXT_BEGIN, ""
    if not model.add_dummy_prefix:
        begin, spaces = f"{TEXT_BEGIN}{WORD}", WORD
    if model.remove_extra_whitespaces and model.add_dummy_prefix:
        spaces = f"(?:{WORD}\\z|{WORD}?(?={WORD}))"
    elif model.remove_extra_whitespaces:
        spaces = f"{WORD}{{1,2}}"
    first = f"\\A{FIRST_PART}(?:{NO_SPACE}{begin}|{TEXT_BEGIN}{spaces})"
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Metaspace(WORD, prepend_scheme="never", split=False),
        # The only step that knows the first part.
        pre_tokenizers.Metaspace(FIRST_PART, prepend_scheme="first", split=False),
        pre_tokenizers.Split(Regex(f"\\A{NO_SPACE}?{TEXT_BEGIN}{WORD}"), "removed"),
        pre_tokenizers.Split(Regex(first), "removed"),
    ]
    symbols = model.symbols
    if model.algorithm == UNIGRAM:
        # It finds symbols by their scores.
        steps += _byte_cuts(model)
    elif symbols:
        steps.append(pre_tokenizers.Split(Regex(longest_pattern(symbols)), "isolated"))
    return pre_tokenizers.Sequence(steps)


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _scored(model: Model) -> list[tuple[str, float]]:
    """Each piece with the score that makes `tokenizers` treat it as SentencePiece does.

    SentencePiece takes a user-defined piece before any other segmentation, by the score that its
    unigram_model.cc computes as here since version 0.2.2. It never takes an unused one or one of a
    byte for text that spells it: such text is cut otherwise, if only into characters.
    """
    worst = min((piece.score for piece in model.pieces if piece.type == NORMAL), default=0.0)
    known = _known_pieces(model)
    scored: list[tuple[str, float]] = []
    for piece in model.pieces:
        score = piece.score
        if piece.type == USER_DEFINED:
            score = _float32(0.1 * (len(piece.name.encode()) - 1))
        elif piece.type in (UNUSED, BYTE) and known.issuperset(piece.name):
            score = len(piece.name) * min(worst, 0.0) - 1
        scored.append((piece.name, score))
    return scored


def _unigram_problem(model: Model) -> str | None:
    """Return the first piece that text must not become, but does for want of its characters.

    With such pieces text of unknown characters has a low score. So pieces must have no such
    characters, either.
    """
    if not any(piece.type in (UNUSED, BYTE) for piece in model.pieces):
        return None
    known = _known_pieces(model)
    for piece in model.pieces:
        is_text = piece.type in (NORMAL, USER_DEFINED, UNUSED)
        if is_text and not known.issuperset(piece.name):
            kind = "unused " if piece.type == UNUSED else ""
            return f"the {kind}piece {piece.name!r}, but not each of its characters"
    return None


def _known_pieces(model: Model) -> set[str]:
    return {piece.name for piece in model.pieces if piece.type in (NORMAL, USER_DEFINED)}


def _byte_cuts(model: Model) -> list[pre_tokenizers.PreTokenizer]:
    """Cuts around unknown characters of text that spells a byte's piece, which it becomes else.

    No piece goes across such a character, and its bytes are the same alone. Where all characters
    are known, a low score does it.
    """
    digit = "[0-9A-F]"
    known = _known_pieces(model)
    before, after = "", ["<", "0", "x", digit, digit, ">"]
    cuts: list[str] = []
    while after:
        place, *after = after
        letters = "0123456789ABCDEF" if place == digit else place
        unknown = [letter for letter in letters if letter not in known]
        if unknown:
            cuts.append(f"(?<={before})[{''.join(unknown)}](?={''.join(after)})")
        before += place
    if not (model.byte_fallback and cuts):
        return []
    return [pre_tokenizers.Split(Regex("|".join(cuts)), "isolated")]


def _bpe_problem(model: Model) -> str | None:
    """Return the first piece that merges cannot make as SentencePiece's own search does."""
    normal = {piece.name for piece in model.pieces if piece.type == NORMAL}
    scores: dict[float, str] = {}
    for piece in model.pieces:
        if piece.type == UNUSED:
            return f"the unused piece {piece.name!r}"
        if piece.type != NORMAL or len(piece.name) == 1:
            continue
        if not normal.issuperset(piece.name):
            return f"the piece {piece.name!r}, but not each of its characters"
        other = scores.setdefault(piece.score, piece.name)
        if other != piece.name:
            return f"the pieces {other!r} and {piece.name!r} of equal scores"
    return _unreachable(model) if model.symbols else None


def _unreachable(model: Model) -> str | None:
    """Return the first piece whose own text is not cut into it alone; None if there is none.

    With user-defined symbols `tokenizers` takes a word that is a piece at once.
    """
    ids = {piece.name: i for i, piece in enumerate(model.pieces)}
    merging = models.BPE(ids, _merges(model.pieces, ids))
    for piece in model.pieces:
        if piece.type == NORMAL and len(merging.tokenize(piece.name)) != 1:
            return f"user-defined symbols beside the piece {piece.name!r}, which no text becomes"
    return None


def _merges(pieces: list[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs of pieces that form a piece; the pairs of the piece with the best score first."""
    normal = {piece.name for piece in pieces if piece.type == NORMAL}
    ranked = []
    for name, score, kind in pieces:
        if kind != NORMAL:
            continue
        for i in range(1, len(name)):
            left, right = name[:i], name[i:]
            if left in normal and right in normal:
                # Pairs of one piece by the left part's id.
                ranked.append((-score, ids[name], ids[left], (left, right)))
    ranked.sort()
    return [pair for *_, pair in ranked]
