"""What a document goes through before its sentences are looked for; each step is counted."""

import re
import unicodedata
from collections import Counter

from bertjax.config import DataConfig

# Not those that are white space too (tab, form feed, ...): they keep words apart.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")

COUNTED = ("documents_read", "normalised_documents", "control_characters", "short_documents")
"""The counts of `clean`: documents that came in; changed by NFC; characters and documents dropped."""


def clean(text: str, config: DataConfig, counts: Counter[str]) -> str:
    """`text` in Unicode's form NFC without control characters; empty when it is to be dropped as
    too short.
    """
    counts["documents_read"] += 1
    text, dropped = _CONTROL.subn("", text)
    counts["control_characters"] += dropped
    # After the control characters: one of them may have kept a letter from its accent.
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        counts["normalised_documents"] += 1
    if len(text) < config.min_document_characters:
        counts["short_documents"] += 1
        return ""
    return text
