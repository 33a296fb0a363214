"""Rows of drawn texts by drawn layouts, held to a plain loop."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.row_layout import RowLayout, Texts, bert_layout

LAYOUTS = {
    "bert": bert_layout(2, 3),
    "begin": RowLayout((2,), (2,), (), 0),
    "begin_alone": RowLayout((2,), (), (), 0),
    "begin_without_segments": RowLayout((2,), (2,), (), None),
    "two_pairs_of_ends": RowLayout((2,), (3, 2), (3,), 1),
    "longer": RowLayout((2, 4), (3, 3, 2), (3, 5), 2),
}
TEXT = st.lists(st.integers(10, 99), max_size=6)
by_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def with_layout(word_piece, layout):
    """A tokenizer of the same pieces, whose rows have another layout."""
    other = copy.copy(word_piece)
    other._clear_cache()  # else both would fill one
    other.layout = layout
    return other


def slices(texts):
    """The texts as slices of one array, in reverse and with other ids between them."""
    flat, begins = [], []
    for text in reversed(texts):
        flat += [7, 7]
        begins.insert(0, len(flat))
        flat += text
    lengths = np.array([len(text) for text in texts], np.int64)
    return Texts(np.array(flat, np.int32), np.array(begins, np.int64), lengths)


def plain_row(layout, a, b):
    """A row and its segments; b is None in a row of one text."""
    if b is None:
        ids = [*layout.before, *a, *layout.after]
        return ids, [0] * len(ids)
    ids = [*layout.before, *a, *layout.between, *b, *layout.after]
    if layout.first_between is None:
        return ids, [0] * len(ids)
    begin = len(layout.before) + len(a) + layout.first_between
    return ids, [0] * begin + [1] * (len(ids) - begin)


@by_layout
@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=8))
def test_rows_and_segments_are_those_of_a_plain_loop(layout, texts):
    first = slices([a for a, _ in texts])
    second = slices([b or [] for _, b in texts])
    is_pair = np.array([b is not None for _, b in texts], bool)
    ids, offsets, second_begins = layout.rows(first, second, is_pair)
    assert (ids.dtype, offsets.dtype, second_begins.dtype) == (np.int32, np.int64, np.int32)
    expected = [plain_row(layout, a, b) for a, b in texts]
    assert ids.tolist() == [i for row, _ in expected for i in row]
    assert np.diff(offsets).tolist() == [len(row) for row, _ in expected]
    for begin, (row, segments) in zip(second_begins, expected, strict=True):
        assert [int(place >= begin) for place in range(len(row))] == segments
    begins = layout.text_begins(first.lengths)
    for (a, b), begin, (row, _) in zip(texts, begins, expected, strict=True):
        assert b is None or row[begin : begin + len(b)] == b, a


@by_layout
@given(texts=st.lists(TEXT, max_size=8), others=st.lists(TEXT, min_size=8, max_size=8))
def test_one_text_in_each_row_and_two_in_each_row_need_no_flags(layout, texts, others):
    first, second = slices(texts), slices(others[: len(texts)])
    alone, pairs = layout.rows(first), layout.rows(first, second)
    none, every = np.zeros(len(texts), bool), np.ones(len(texts), bool)
    empty = Texts(second.ids, second.begins, np.zeros(len(texts), np.int64))
    for found, expected in (
        (alone, layout.rows(first, empty, none)),
        (pairs, layout.rows(first, second, every)),
    ):
        for values, expected_values in zip(found, expected, strict=True):
            assert np.array_equal(values, expected_values)
    for number, text in enumerate(texts):
        row = layout.row(np.array(text, np.int32))
        assert row.dtype == np.int32
        assert row.tolist() == alone.ids[slice(*alone.offsets[number : number + 2])].tolist()


@by_layout
def test_rows_are_written_where_they_begin_and_nowhere_else(layout):
    ids = np.full(40, -1, np.int32)
    first, second = slices([[10, 11], [12]]), slices([[20], []])
    layout.write(ids, np.array([3, 25]), first, second, np.array([True, False]))
    a, b = plain_row(layout, [10, 11], [20])[0], plain_row(layout, [12], None)[0]
    expected = [-1] * 40
    expected[3 : 3 + len(a)], expected[25 : 25 + len(b)] = a, b
    assert ids.tolist() == expected


def test_documents_are_parted_by_what_ends_a_text_or_else_begins_one():
    assert {name: layout.document_end for name, layout in LAYOUTS.items()} == {
        "bert": (3,),
        "begin": (2,),
        "begin_alone": (2,),
        "begin_without_segments": (2,),
        "two_pairs_of_ends": (3,),
        "longer": (3, 5),
    }
