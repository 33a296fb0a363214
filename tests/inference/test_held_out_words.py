"""The words of a text, and those of them that are masked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.inference.held_out_words import LONGEST_WORD, masked_words, word_spans


def words(text):
    return [text[begin:end] for begin, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("The cat\nsees it.", ["The", "cat", "sees", "it."]),
        ("Ein Bär,\u00a0größer", ["Ein", "Bär,", "größer"]),
        ("我爱abc def。", ["我", "爱", "abc", "def。"]),
        ("カメラを買う", list("カメラを買う")),
        # Thai: a vowel sign belongs to the letter before it.
        ("ที่ดี", ["ที่", "ดี"]),
        # Korean and Devanagari have spaces.
        ("나는 간다", ["나는", "간다"]),
        ("मैं हूँ", ["मैं", "हूँ"]),
        ("x" * 70, ["x" * 32, "x" * 32, "x" * 6]),
    ],
)
def test_words_stand_between_white_space_and_alone_in_scripts_without(text, expected):
    assert words(text) == expected


# Letters of several scripts, marks, signs beyond the first plane, and white space.
TEXTS = st.text(
    st.sampled_from("abéß .,-'\n\t\u00a0\u3000我爱カ。ทีม나는हूँ😀\u0301\u200b𠀀"), max_size=120
)


@given(TEXTS)
def test_each_character_but_white_space_is_in_one_word(text):
    spans = word_spans(text)
    assert "".join(words(text)) == "".join(text.split())
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    assert (spans[:, 1] - spans[:, 0] <= LONGEST_WORD).all()


@given(TEXTS)
def test_a_share_of_the_words_is_masked_and_always_the_same(text):
    count = len(word_spans(text))
    masked = masked_words(text, count)
    assert masked.shape == (count,)
    assert masked.sum() == (max(1, round(0.15 * count)) if count else 0)
    np.testing.assert_array_equal(masked, masked_words(text, count))


def test_the_words_of_a_text_are_never_drawn_anew():
    """Figures of different versions are compared, so this must not change."""
    text = " ".join(f"w{number}" for number in range(40))
    assert np.flatnonzero(masked_words(text, 40)).tolist() == [9, 13, 21, 30, 31, 36]


def test_words_are_drawn_evenly_and_differently_for_each_text():
    hits = np.zeros(20)
    for number in range(2000):
        hits += masked_words(f"text {number}", 20)
    # 3 of 20 words each time: 300 hits a word, with a deviation of 16.
    assert hits.sum() == 6000
    assert (abs(hits - 300) < 5 * 16).all()
