"""Cleaning of a document before it is split into sentences; each step is counted."""

import re
import unicodedata
from collections import Counter

from bertjax.config import DataConfig

# Control characters to remove. Those that are also white space (tab, form feed, ...) are kept,
# because they separate words.
# Besides: U+FEFF is a byte order mark in the midst of text, U+FFFE and U+FFFF are noncharacters
# (Unicode, chapter 23).
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")

# These names are also written into the manifests of prepared folders.
COUNTED = ("documents_read", "normalised_documents", "control_characters", "short_documents")
"""Names of the counts that `clean` keeps.

In this order: documents read, documents changed by NFC, characters removed, documents dropped.
"""


def clean(text: str, config: DataConfig, counts: Counter[str]) -> str:
    """Return `text` in Unicode's form NFC without control characters, and update `counts`.

    If the cleaned text is shorter than `config.min_document_characters`, the result is an empty
    string.
    """
    counts["documents_read"] += 1
    text, dropped = _CONTROL.subn("", text)
    counts["control_characters"] += dropped
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
