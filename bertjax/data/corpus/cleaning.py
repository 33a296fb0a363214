"""Cleaning of a document before it is split into sentences; each step is counted."""

import re
import unicodedata
from collections import Counter

from bertjax.config import DataConfig

# What separates words for a reader, but not for every tokenizer: BERT's drops control characters
# and U+200B, so that the words beside them become one. U+200B separates words of Thai and Khmer;
# U+200C and U+200D are not here, because they change letters of Persian and Hindi. The last three
# look like a space.
_SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u200b\u2028\u2029\u2800\u3164\uffa0"
# White space to every tokenizer, but byte-level BPE has other tokens for it than for a space.
_SPACES = (
    "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
# Other control characters; U+FEFF, which is a byte order mark in the midst of text; and the
# noncharacters U+FFFE and U+FFFF (Unicode, chapter 23).
_DROPPED = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff"
# One class: with a group for each kind the search takes four times as long.
_CHANGED = re.compile(f"[{_DROPPED}{_SEPARATORS}{_SPACES}]")

WHITE_SPACE = "\t\n\r \x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029" + _SPACES
"""What `str.isspace` is true for."""


def _unseen() -> str:
    """White space, and characters that a reader does not see when they stand alone."""
    # Control characters; then Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt)
    # below U+10000: joiners, marks of direction, selectors of a variant, and the like; the blank of
    # Braille; the noncharacters.
    spans = [(0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C)]
    spans += [(0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F)]
    spans += [(0x202A, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164)]
    spans += [(0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8)]
    spans += [(0xFFFE, 0xFFFF)]
    listed = [chr(code) for first, last in spans for code in range(first, last + 1)]
    return "".join(sorted({*listed, *WHITE_SPACE}))


UNSEEN = _unseen()
"""Characters of which a blank line consists, each once."""

# These names are also written into the manifests of prepared folders.
LONG_DOCUMENT_CUTS = "long_document_cuts"
"""Name of the count of places where a document too long for the memory was cut into two."""
COUNTED = (
    "documents_read",
    "normalised_documents",
    "control_characters",
    "short_documents",
    LONG_DOCUMENT_CUTS,
)
"""Names of the counts of reading and cleaning.

In this order: documents read, documents changed by NFC, control characters and the like removed
or replaced by a space, documents dropped; these four are kept by `clean`. The last is kept by the
readers.
"""


def is_blank(text: str) -> bool:
    """Return true if a reader sees nothing in `text`: it has white space and the like alone."""
    # Most texts begin with a letter. Then nothing is stripped, and nothing is copied.
    return not text.lstrip(UNSEEN)


def clean(text: str, config: DataConfig, counts: Counter[str]) -> str:
    """Return `text` in Unicode's form NFC without control characters, and update `counts`.

    Lines end with a line feed then, and of the other characters that separate words only tabs stay:
    the rest become a space.
    If the cleaned text is shorter than `config.min_document_characters`, the result is an empty
    string.
    """
    counts["documents_read"] += 1

    def replacement(match: re.Match[str]) -> str:
        character = match[0]
        if character in _SPACES:
            return " "
        counts["control_characters"] += 1
        return " " if character in _SEPARATORS else ""

    text = _CHANGED.sub(replacement, text)
    # As the reader of lines has it, so that a text in JSON has the same lines.
    if "\r" in text:
        text = text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    # NFC comes after the control characters are removed: one of them may have stood between a
    # letter and its accent.
    # ASCII is in NFC always, and `isascii` is a flag of the string.
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        counts["normalised_documents"] += 1
    if len(text) < config.min_document_characters:
        counts["short_documents"] += 1
        return ""
    return text
