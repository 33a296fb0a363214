"""Cleaning of a document before it is split into sentences; each step is counted."""

import re
import unicodedata
from collections import Counter

from bertjax.config import DataConfig

# Control characters that are white space too (tab, form feed, ...) are kept: they separate words.
# Besides: U+FEFF is a byte order mark in the midst of text, U+FFFE and U+FFFF are noncharacters
# (Unicode, chapter 23).
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")

# Prepared folders have these names in their manifests.
COUNTED = ("documents_read", "normalised_documents", "control_characters", "short_documents")
"""Names of the counts of `clean`.

Documents that came in, documents changed by NFC, characters dropped, documents dropped.
"""


def clean(text: str, config: DataConfig, counts: Counter[str]) -> str:
    """Return `text` in Unicode's form NFC without control characters; add to `counts`.

    Returns an empty string for a document that is then shorter than
    `config.min_document_characters`.
    """
    counts["documents_read"] += 1
    text, dropped = _CONTROL.subn("", text)
    counts["control_characters"] += dropped
    # After the control characters: one of them may have kept a letter from its accent.
    # ASCII is in NFC always, and `isascii` is a flag of the string.
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        counts["normalised_documents"] += 1
    if len(text) < config.min_document_characters:
        counts["short_documents"] += 1
        return ""
    return text
