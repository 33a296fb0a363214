"""The form of a row: which special tokens stand before, between and after its texts.

A tokenizer has its layout (`Tokenizer.layout`), and all rows are built by it. So only this file
knows where in a row a text stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertjax.data.ragged import ranges


class Texts(NamedTuple):
    """A text, or a part of it, for each row: slices of one array of ids."""

    ids: np.ndarray
    """int32 [n]."""
    begins: np.ndarray
    lengths: np.ndarray
    """int64 [rows] each."""


class Rows(NamedTuple):
    """Rows of ids, one after another."""

    ids: np.ndarray
    """int32 [n]."""
    offsets: np.ndarray
    """Where each row begins, then the end; int64 [rows + 1]."""
    second_begins: np.ndarray
    """The position in its row at which segment 1 begins: the row's length if it has none; int32."""


@dataclass(frozen=True)
class RowLayout:
    """A row is `before`, a text, `after`; a pair is `before`, A, `between`, B, `after`.

    The texts of rows are given as `first` and `second`. With `is_pair`, bool [rows], some rows have
    no second text: its length is 0 there.
    """

    before: tuple[int, ...]
    """Ids before the first text: one at least, whose vector may stand for the whole row."""
    between: tuple[int, ...]
    """Ids between the texts of a pair; a tokenizer may have none."""
    after: tuple[int, ...]
    """Ids after the last text; a tokenizer may have none."""
    first_between: int | None = 1
    """How many ids of `between` have segment 0, like A. None: B has segment 0 too."""

    @property
    def single_specials(self) -> int:
        """Number of special tokens in a row of one text."""
        return len(self.before) + len(self.after)

    @property
    def pair_specials(self) -> int:
        """Number of special tokens in a row of two texts."""
        return self.single_specials + len(self.between)

    @property
    def document_end(self) -> tuple[int, ...]:
        """Ids between documents that are one text: what ends a text, or else what begins one."""
        return self.after or self.before

    def specials(self, is_pair: np.ndarray) -> np.ndarray:
        """Return the number of special tokens of each row; int64 [rows]."""
        return np.where(is_pair, self.pair_specials, self.single_specials)

    def text_begins(self, first_lengths: np.ndarray) -> np.ndarray:
        """Return the position of each second text in its row."""
        return len(self.before) + first_lengths + len(self.between)

    def segment_begins(
        self, first_lengths: np.ndarray, row_lengths: np.ndarray, is_pair: np.ndarray
    ) -> np.ndarray:
        """Return the position in each row at which segment 1 begins: its length if it has none."""
        if self.first_between is None:
            return row_lengths
        begins = len(self.before) + first_lengths + self.first_between
        return np.where(is_pair, begins, row_lengths)

    def row(self, text: np.ndarray) -> np.ndarray:
        """Return the row of one text; int32."""
        return np.concatenate([self.before, text, self.after]).astype(np.int32)

    def rows(
        self, first: Texts, second: Texts | None = None, is_pair: np.ndarray | None = None
    ) -> Rows:
        """Return a row for each text or pair of texts; without `is_pair` all have a second one."""
        is_pair = _pairs(first, second, is_pair)
        second_lengths = 0 if second is None else second.lengths
        lengths = first.lengths + second_lengths + self.specials(is_pair)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.empty(offsets[-1], np.int32)
        self.write(ids, offsets[:-1], first, second, is_pair)
        begins = self.segment_begins(first.lengths, lengths, is_pair)
        return Rows(ids, offsets, begins.astype(np.int32))

    def write(
        self,
        row_ids: np.ndarray,
        row_begins: np.ndarray,
        first: Texts,
        second: Texts | None = None,
        is_pair: np.ndarray | None = None,
    ) -> None:
        """Write rows into an array of ids, each at its begin; int64 [rows]."""
        is_pair = _pairs(first, second, is_pair)
        begins = row_begins + len(self.before)
        ends = begins + first.lengths
        _put(self.before, row_ids, row_begins)
        _copy(first, row_ids, begins)
        if second is not None:
            _put(self.between, row_ids, ends[is_pair])
            second_begins = ends + is_pair * len(self.between)
            _copy(second, row_ids, second_begins)
            ends = second_begins + second.lengths
        _put(self.after, row_ids, ends)


def bert_layout(cls_id: int, sep_id: int) -> RowLayout:
    """[CLS] A [SEP], and [CLS] A [SEP] B [SEP] with segment 1 after the first [SEP]."""
    return RowLayout((cls_id,), (sep_id,), (sep_id,))


def _pairs(first: Texts, second: Texts | None, is_pair: np.ndarray | None) -> np.ndarray:
    """Return which rows have two texts; bool [rows]."""
    if is_pair is not None:
        return is_pair
    return np.full(len(first.lengths), second is not None)


def _put(tokens: Sequence[int], row_ids: np.ndarray, begins: np.ndarray) -> None:
    """Write the same ids at several places."""
    for place, token in enumerate(tokens):
        row_ids[begins + place] = token


def _copy(texts: Texts, row_ids: np.ndarray, begins: np.ndarray) -> None:
    """Copy each text to its place."""
    source = ranges(texts.begins, texts.begins + texts.lengths)
    row_ids[ranges(begins, begins + texts.lengths)] = texts.ids[source]
