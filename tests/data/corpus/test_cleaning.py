import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import COUNTED, UNSEEN, WHITE_SPACE, clean, is_blank

# Rich in what cleaning changes: marks to compose, jamo, compatibility forms, control characters and
# white space.
TEXT = st.text(st.one_of(st.characters(), st.sampled_from("eäÅ\u0301\u0308\u0323\u1100\u1161\u11a8\uf900\u212b\0\t\n\r\x0b\x0c\x1c\x7f\x85\x9f\ufeff\u200b\u200d\u2028\u2800\u00a0\u3000\u2000")))  # fmt: skip
# As the Unicode database and Python have them, not as `cleaning` does.
SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u200b\u2028\u2029\u2800\u3164\uffa0"


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


def cleaned_character(c):
    if c in SEPARATORS or unicodedata.category(c) == "Zs":
        return " "
    is_control = unicodedata.category(c) == "Cc" and not c.isspace()
    return "" if is_control or c in "\ufeff\ufffe\uffff" else c


@given(TEXT)
@example("e\0\u0301\r\n\x85\x1c\ufeff")
def test_nothing_else_is_lost_and_each_change_is_counted(text):
    counts = Counter()
    kept = "".join(map(cleaned_character, text))
    kept = kept.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    assert clean(text, DataConfig(), counts) == unicodedata.normalize("NFC", kept)
    changed = [c for c in text if cleaned_character(c) != c and unicodedata.category(c) != "Zs"]
    assert counts["control_characters"] == len(changed)
    assert counts["normalised_documents"] == (unicodedata.normalize("NFC", kept) != kept)


@pytest.mark.parametrize("text,cleaned,counts", [
    ("plain\ttext\n", "plain\ttext\n", {}),
    ("cafe\u0301", "caf\u00e9", {"normalised_documents": 1}),
    ("\ufeffa\0b\x7fc\x85d", "abc d", {"control_characters": 4}),
    ("one\x0btwo\u200bthree\u2028four", "one two three four", {"control_characters": 3}),
    ("\u0645\u06cc\u200c\u062e \u0915\u094d\u200d\u0937", "\u0645\u06cc\u200c\u062e \u0915\u094d\u200d\u0937", {}),
    ("e\u0301\x01", "\u00e9", {"normalised_documents": 1, "control_characters": 1}),
    ("\u4e2d\u6587\ufffe", "\u4e2d\u6587", {"control_characters": 1}),
    ("One.\r\rTwo.\r\nThree.\rFour.\r\r\nFive.", "One.\n\nTwo.\nThree.\nFour.\nFive.", {}),
    ("deux\u00a0mots\u3000\u6f22", "deux mots \u6f22", {}),
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


def test_no_separator_that_cleaning_leaves_is_dropped_by_berts_tokenizer():
    normalizer, words = normalizers.BertNormalizer(lowercase=False), BertPreTokenizer()
    for separator in [*WHITE_SPACE, *SEPARATORS]:
        text = clean(f"ab{separator}cd", DataConfig(), Counter())
        found = words.pre_tokenize_str(normalizer.normalize_str(text))
        assert [word for word, _ in found] == ["ab", "cd"], hex(ord(separator))


def test_a_line_is_blank_where_a_reader_sees_nothing():
    assert sorted(WHITE_SPACE) == [c for c in map(chr, range(0x110000)) if c.isspace()]
    # Of the format characters only these are drawn: they enclose numbers (Unicode, section 9.2).
    drawn = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9\ufffa\ufffb"
    for c in map(chr, range(0xD800)):
        if unicodedata.category(c) in ("Cc", "Cf"):
            assert is_blank(c) == (c not in drawn), hex(ord(c))
        if unicodedata.category(c) in ("Lu", "Ll", "Nd", "Po", "Sc"):
            assert not is_blank(c), hex(ord(c))
    for text in ("", UNSEEN, "\u200b \ufeff\u2060\0\x1a"):
        assert is_blank(text)
    for text in ("\u200b.", " a "):
        assert not is_blank(text)
