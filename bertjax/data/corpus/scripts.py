"""Counts of the characters of each script, by the ranges of Unicode."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# Blocks of Unicode 16 (Blocks.txt), by the script that they hold; Latin, Greek and kana without the
# punctuation among them. A block's marks and digits count as its script. Characters elsewhere, such
# as punctuation, digits, emoji and scripts that are not listed, are of no script.
_RANGES = (
    ("Latin", 0x41, 0x5A), ("Latin", 0x61, 0x7A), ("Latin", 0xC0, 0xD6), ("Latin", 0xD8, 0xF6),
    ("Latin", 0xF8, 0x2AF), ("Latin", 0x1E00, 0x1EFF), ("Latin", 0x2C60, 0x2C7F),
    ("Latin", 0xA722, 0xA787), ("Latin", 0xA78B, 0xA7FF), ("Latin", 0xAB30, 0xAB5A),
    ("Latin", 0xFF21, 0xFF3A), ("Latin", 0xFF41, 0xFF5A),
    ("Greek", 0x386, 0x386), ("Greek", 0x388, 0x3E1), ("Greek", 0x3F0, 0x3FF),
    ("Greek", 0x1F00, 0x1FFF),
    ("Cyrillic", 0x400, 0x52F), ("Cyrillic", 0x1C80, 0x1C8F), ("Cyrillic", 0x2DE0, 0x2DFF),
    ("Cyrillic", 0xA640, 0xA69F),
    ("Armenian", 0x530, 0x58F), ("Hebrew", 0x590, 0x5FF), ("Hebrew", 0xFB1D, 0xFB4F),
    ("Arabic", 0x600, 0x6FF), ("Arabic", 0x750, 0x77F), ("Arabic", 0x870, 0x8FF),
    ("Arabic", 0xFB50, 0xFDFF), ("Arabic", 0xFE70, 0xFEFC),
    ("Syriac", 0x700, 0x74F), ("Syriac", 0x860, 0x86F), ("Thaana", 0x780, 0x7BF),
    ("Nko", 0x7C0, 0x7FF),
    ("Devanagari", 0x900, 0x97F), ("Devanagari", 0xA8E0, 0xA8FF), ("Bengali", 0x980, 0x9FF),
    ("Gurmukhi", 0xA00, 0xA7F), ("Gujarati", 0xA80, 0xAFF), ("Oriya", 0xB00, 0xB7F),
    ("Tamil", 0xB80, 0xBFF), ("Telugu", 0xC00, 0xC7F), ("Kannada", 0xC80, 0xCFF),
    ("Malayalam", 0xD00, 0xD7F), ("Sinhala", 0xD80, 0xDFF), ("Thai", 0xE00, 0xE7F),
    ("Lao", 0xE80, 0xEFF), ("Tibetan", 0xF00, 0xFFF), ("Myanmar", 0x1000, 0x109F),
    ("Myanmar", 0xA9E0, 0xA9FF), ("Myanmar", 0xAA60, 0xAA7F),
    ("Georgian", 0x10A0, 0x10FF), ("Georgian", 0x1C90, 0x1CBF), ("Georgian", 0x2D00, 0x2D2F),
    ("Hangul", 0x1100, 0x11FF), ("Hangul", 0x3130, 0x318F), ("Hangul", 0xA960, 0xA97F),
    ("Hangul", 0xAC00, 0xD7FF),
    ("Ethiopic", 0x1200, 0x139F), ("Ethiopic", 0x2D80, 0x2DDF), ("Ethiopic", 0xAB00, 0xAB2F),
    ("Cherokee", 0x13A0, 0x13FF), ("Cherokee", 0xAB70, 0xABBF),
    ("Canadian Aboriginal", 0x1400, 0x167F), ("Canadian Aboriginal", 0x18B0, 0x18FF),
    ("Khmer", 0x1780, 0x17FF), ("Mongolian", 0x1800, 0x18AF), ("Ol Chiki", 0x1C50, 0x1C7F),
    ("Tifinagh", 0x2D30, 0x2D7F),
    ("Kana", 0x3041, 0x3096), ("Kana", 0x30A1, 0x30FA), ("Kana", 0x31F0, 0x31FF),
    ("Kana", 0xFF66, 0xFF6F), ("Kana", 0xFF71, 0xFF9D),
    ("Bopomofo", 0x3100, 0x312F),
    ("Han", 0x2E80, 0x2FDF), ("Han", 0x3400, 0x4DBF), ("Han", 0x4E00, 0x9FFF),
    ("Han", 0xF900, 0xFAFF), ("Han", 0x20000, 0x323AF),
    ("Yi", 0xA000, 0xA4CF), ("Vai", 0xA500, 0xA63F), ("Javanese", 0xA980, 0xA9DF),
    ("Meetei Mayek", 0xAAE0, 0xAAFF), ("Meetei Mayek", 0xABC0, 0xABFF),
    ("Adlam", 0x1E900, 0x1E95F),
)  # fmt: skip
_NAMES = tuple(dict.fromkeys(name for name, _, _ in _RANGES))


# What is left of ASCII without these is Latin.
_ASCII_WITHOUT_SCRIPT = bytes(code for code in range(0x80) if not chr(code).isalpha())


def script_counts(texts: Sequence[str]) -> dict[str, int]:
    """Return the number of characters of each script in the texts, without those that have none."""
    # Most sentences of a Latin text are ASCII, for which deleting takes a fifth of the time.
    ascii_text = "".join(filter(str.isascii, texts))
    latin = len(ascii_text.encode().translate(None, _ASCII_WITHOUT_SCRIPT))
    other_text = "".join(itertools.filterfalse(str.isascii, texts))
    codes = np.frombuffer(other_text.encode("utf-32-le", "surrogatepass"), np.uint32)
    counts = np.bincount(_table()[codes], minlength=len(_NAMES) + 1)
    counts[1 + _NAMES.index("Latin")] += latin
    numbers = counts[1:].tolist()
    return {name: number for name, number in zip(_NAMES, numbers, strict=True) if number}


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """The script of each character, as 1 + its index in `_NAMES`; 0 for none; uint8."""
    table = np.zeros(0x110000, np.uint8)
    for name, first, last in _RANGES:
        table[first : last + 1] = 1 + _NAMES.index(name)
    return table
