"""Rows of a text, the pieces of its masked words in them, and the bytes that these stand for."""

from typing import NamedTuple

import numpy as np

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.inference.held_out_words import masked_words, word_spans


class MaskedRow(NamedTuple):
    """One row of a text, with its special tokens."""

    ids: np.ndarray
    """Ids before any is masked; int32 [L]."""
    positions: np.ndarray
    """Positions of the masked pieces, ascending; int32 [P]."""


class MaskedText(NamedTuple):
    """A text in rows, and what its masked pieces stand for."""

    rows: list[MaskedRow]
    bytes: int
    """Bytes in UTF-8 of the masked words, and of what else their pieces stand for, without white
    space."""
    unspelled_bytes: int
    """Those of them that are in an unknown piece, or in no piece."""
    words: int
    """Number of masked words."""
    pieces: int
    """Number of masked pieces."""


class _Pieces(NamedTuple):
    """The pieces of a text and the characters that each stands for."""

    ids: np.ndarray
    """int32 [n]."""
    begins: np.ndarray
    """The first character of each that is no white space, ascending; the text's length if there is
    none; int64 [n]."""
    unread: np.ndarray | None
    """True for characters that no piece has; bool [characters]. None: there are none."""


def masked_text(tokenizer: Tokenizer, text: str, longest: int) -> MaskedText:
    """Return a text in rows of at most `longest` ids, special tokens included.

    Lines are encoded one by one, as sentences are in the data of pretraining. A row begins at a
    word, unless a word alone is longer than a row. A piece is masked if it stands for a character
    of a masked word. Pieces that stand for parts of one character are masked together.
    """
    spans = word_spans(text)
    chosen = masked_words(text, len(spans))
    word_of = _words_of_characters(spans, len(text))
    pieces = _pieces_of(tokenizer, text, word_of >= 0)
    is_chosen = np.append(chosen, False)[word_of]

    # Groups: pieces with the same first character, and the characters up to the next group's.
    starts, group_of_piece = np.unique(pieces.begins, return_inverse=True)
    group_of = np.searchsorted(starts, np.arange(len(text)), side="right") - 1
    if pieces.unread is not None:
        group_of[pieces.unread] = -1
    # One entry more, for characters without a group (-1) and so without a piece.
    is_masked = np.zeros(len(starts) + 1, bool)
    is_masked[group_of[is_chosen]] = True
    is_masked[-1] = False
    is_unknown = np.zeros(len(starts) + 1, bool)
    is_unknown[-1] = True
    if tokenizer.unk_id is not None:
        is_unknown[group_of_piece[pieces.ids == tokenizer.unk_id]] = True

    is_counted = (word_of >= 0) & (is_chosen | is_masked[group_of])
    sizes = _utf8_sizes(text)
    masked = is_masked[group_of_piece]
    return MaskedText(
        rows=_rows(tokenizer, pieces, masked, _begin_words(pieces, word_of), longest),
        bytes=int(sizes[is_counted].sum()),
        unspelled_bytes=int(sizes[is_counted & is_unknown[group_of]].sum()),
        words=int(chosen.sum()),
        pieces=int(masked.sum()),
    )


def _words_of_characters(spans: np.ndarray, length: int) -> np.ndarray:
    """Return the number of the word that each character is in, -1 for white space; int64."""
    word_of = np.full(length, -1, np.int64)
    sizes = spans[:, 1] - spans[:, 0]
    numbers = np.repeat(np.arange(len(spans)), sizes)
    # What is no white space is in exactly one word, and words are in order.
    offsets = np.repeat(spans[:, 0] - np.cumsum(sizes) + sizes, sizes)
    word_of[offsets + np.arange(len(offsets))] = numbers
    return word_of


def _pieces_of(tokenizer: Tokenizer, text: str, is_visible: np.ndarray) -> _Pieces:
    """Return the pieces of all lines of a text."""
    lines = text.split("\n")
    line_begins = np.cumsum([0, *(len(line) + 1 for line in lines)])[:-1]
    ids, offsets = tokenizer.encode_batch(lines)
    begins_by_line = tokenizer.encode_begins(lines)
    counts = [len(begins) for begins in begins_by_line]
    if counts != np.diff(offsets).tolist():
        raise ValueError("encode_begins has other tokens than encode_batch")
    begins = np.concatenate([np.zeros(0, np.int64), *map(np.asarray, begins_by_line)])
    begins = begins.astype(np.int64) + np.repeat(line_begins, counts)
    # White space before a word is that of its first piece in some tokenizers, of none in others.
    length = len(text)
    places = np.where(is_visible, np.arange(length), length)
    following = np.append(np.minimum.accumulate(places[::-1])[::-1], length)
    begins = np.maximum.accumulate(following[np.minimum(begins, length)]) if len(begins) else begins
    unread = tokenizer.unread(lines)
    if unread is not None:
        # The ends of lines are in no line.
        unread = np.insert(unread, (line_begins[1:] - np.arange(1, len(lines))), True)
    return _Pieces(ids, begins, unread)


def _begin_words(pieces: _Pieces, word_of: np.ndarray) -> np.ndarray:
    """Return whether each piece is the first one of a word; bool [n]."""
    word_of_piece = np.append(word_of, -1)[pieces.begins]
    return np.diff(word_of_piece, prepend=-1) != 0


def _rows(
    tokenizer: Tokenizer,
    pieces: _Pieces,
    masked: np.ndarray,
    begin_words: np.ndarray,
    longest: int,
) -> list[MaskedRow]:
    layout = tokenizer.layout
    room = longest - layout.single_specials
    rows = []
    places = np.flatnonzero(begin_words)
    begin = 0
    while begin < len(pieces.ids):
        end = min(begin + room, len(pieces.ids))
        if end < len(pieces.ids):
            # The last word's begin that lies in the row, or behind it.
            last = places[np.searchsorted(places, end, side="right") - 1] if len(places) else 0
            end = int(last) if last > begin else end
        positions = np.flatnonzero(masked[begin:end]) + len(layout.before)
        rows.append(MaskedRow(layout.row(pieces.ids[begin:end]), positions.astype(np.int32)))
        begin = end
    return rows


def _utf8_sizes(text: str) -> np.ndarray:
    """Return the number of bytes of each character in UTF-8; int64 [characters]."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    # As many bytes as there are of these numbers up to the character's own (RFC 3629, section 3).
    return np.searchsorted(np.array([0, 0x80, 0x800, 0x10000]), codes, side="right")
