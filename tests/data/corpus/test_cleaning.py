import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import COUNTED, clean

# Rich in what cleaning changes: marks to compose, jamo, compatibility forms, control characters and
# white space.
TEXT = st.text(st.one_of(st.characters(), st.sampled_from("eäÅ\u0301\u0308\u0323\u1100\u1161\u11a8\uf900\u212b\0\t\n\r\x0b\x0c\x1c\x7f\x85\x9f\ufeff")))  # fmt: skip


@given(TEXT)
@example("e\0\u0301")
def test_cleaned_text_is_nfc_and_has_no_control_characters_but_white_space(text):
    cleaned = clean(text, DataConfig(), Counter())
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not [c for c in cleaned if unicodedata.category(c) == "Cc" and not c.isspace()]


@given(TEXT)
@example("e\0\u0301")
def test_cleaning_a_second_time_changes_nothing(text):
    once, counts = clean(text, DataConfig(), Counter()), Counter()
    assert clean(once, DataConfig(), counts) == once
    assert +counts == {"documents_read": 1}


@given(TEXT)
@example("e\0\u0301\r\n\x85\x1c\ufeff")
def test_nothing_else_is_lost_and_each_change_is_counted(text):
    counts = Counter()
    kept = "".join(
        c
        for c in text
        if (unicodedata.category(c) != "Cc" or c.isspace()) and c not in "\ufeff\ufffe\uffff"
    )
    assert clean(text, DataConfig(), counts) == unicodedata.normalize("NFC", kept)
    assert counts["control_characters"] == len(text) - len(kept)
    assert counts["normalised_documents"] == (unicodedata.normalize("NFC", kept) != kept)


@pytest.mark.parametrize("text,cleaned,counts", [
    ("plain\ttext\n", "plain\ttext\n", {}),
    ("cafe\u0301", "caf\u00e9", {"normalised_documents": 1}),
    ("\ufeffa\0b\x7fc\x85d", "abc\x85d", {"control_characters": 3}),
    ("e\u0301\x01", "\u00e9", {"normalised_documents": 1, "control_characters": 1}),
    ("\u4e2d\u6587\ufffe", "\u4e2d\u6587", {"control_characters": 1}),
    ("", "", {}),
])  # fmt: skip
def test_what_is_changed_is_counted(text, cleaned, counts):
    counted = Counter()
    assert clean(text, DataConfig(), counted) == cleaned
    assert +counted == {"documents_read": 1, **counts}
    assert set(counted) <= set(COUNTED)


@given(TEXT, st.integers(0, 20))
def test_a_document_is_dropped_exactly_when_it_is_too_short_after_cleaning(text, minimum):
    counts = Counter()
    cleaned = clean(text, DataConfig(min_document_characters=minimum), counts)
    without_minimum = clean(text, DataConfig(), Counter())
    too_short = len(without_minimum) < minimum
    assert cleaned == ("" if too_short else without_minimum)
    assert counts["short_documents"] == too_short
