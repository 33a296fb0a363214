import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.corpus.scripts import _NAMES, script_counts

# How Unicode begins the name of a letter, where that is not the name of the script.
FIRST_WORDS = {
    "Canadian Aboriginal": {"CANADIAN"},
    "Ol Chiki": {"OL"},
    "Meetei Mayek": {"MEETEI"},
    "Kana": {"HIRAGANA", "KATAKANA", "HALFWIDTH"},
    "Han": {"CJK"},
    "Latin": {"LATIN", "FULLWIDTH"},
}
COMMON = {"MODIFIER"}  # modifier letters, which are of any script


def test_every_letter_counted_has_its_script_in_its_name():
    for code in range(0x110000):
        letter = chr(code)
        if unicodedata.category(letter)[0] != "L":
            continue
        counts = script_counts([letter])
        for script in counts:
            first = unicodedata.name(letter, "MODIFIER").split()[0]
            assert first in FIRST_WORDS.get(script, {script.upper()}) | COMMON, hex(code)


@pytest.mark.parametrize("script,text", [
    ("Latin", "Größe"), ("Greek", "Ἀθήνα"), ("Cyrillic", "слово"), ("Arabic", "كلمة"), ("Hebrew", "מילה"),
    ("Devanagari", "हिन्दी"), ("Bengali", "বাংলা"), ("Tamil", "தமிழ்"), ("Thai", "ภาษาไทย"), ("Khmer", "ខ្មែរ"),
    ("Hangul", "한국어"), ("Kana", "ひらがなカタカナ"), ("Han", "漢字𠀀"), ("Georgian", "ქართული"),
    ("Ethiopic", "አማርኛ"), ("Armenian", "հայերեն"), ("Tibetan", "བོད་ཡིག"), ("Myanmar", "မြန်မာ"),
])  # fmt: skip
def test_all_characters_of_a_word_are_of_its_script(script, text):
    assert script_counts([text]) == {script: len(text)}


@given(parts=st.lists(st.sampled_from(["word", "слово", "漢字", " 12,5 %.", "\n", "😀", "\ud800"])))
def test_counts_add_up_and_leave_out_what_has_no_script(parts):
    expected = {"Latin": 4, "Cyrillic": 5, "Han": 2}
    texts = {"Latin": "word", "Cyrillic": "слово", "Han": "漢字"}
    assert script_counts(parts) == {
        script: parts.count(texts[script]) * length
        for script, length in expected.items()
        if texts[script] in parts
    }


def test_there_is_a_number_for_each_script_in_a_byte():
    assert len(_NAMES) < 256
