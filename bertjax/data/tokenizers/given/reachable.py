"""Entries of a WordPiece vocabulary that no text can become, as `The` where text is lower-cased.

An entry that the tokenizer's own rules change or divide is never found in text. Every vocabulary
has some: `[unused1]`, `##!`, and in Chinese ones `##中`. Those are left out here. The others show
that the vocabulary was made by other rules than those by which text is read.
"""

import logging
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tokenizers import normalizers, pre_tokenizers

from bertjax.data.tokenizers.vocabulary import CONTINUES, MAX_WORD_CHARACTERS

CAPITALS, ACCENTS = "capital letters", "accents or composed letters"
SPACES, LONG = "spaces or control characters", f"more than {MAX_WORD_CHARACTERS} characters"
CHINESE = "several Chinese characters"
_PLACEHOLDER = re.compile(r"\[.*\]|<.*>", re.DOTALL)  # as [unused1], and marks of a user's own
_SPLIT = pre_tokenizers.BertPreTokenizer()

log = logging.getLogger("bertjax")


class Unreachable(NamedTuple):
    """Entries that no text can become, for one reason."""

    number: int
    first: str


def unreachable_entries(
    entries: Sequence[str], lowercase: bool, strip_accents: bool, kept: Collection[str] = ()
) -> dict[str, Unreachable]:
    """Return the entries that no text can become, by reason.

    Args:
        entries: of a WordPiece vocabulary.
        lowercase: whether text is lower-cased, and `strip_accents` whether it loses its accents.
        kept: entries that text keeps whole, whatever is in them.
    """
    rules = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    by_reason: dict[str, Unreachable] = {}
    for entry in entries:
        body = entry.removeprefix(CONTINUES)
        is_plain = body.isascii() and body.isalnum() and body == body.lower()
        if is_plain and len(body) <= MAX_WORD_CHARACTERS:
            continue
        if not entry or entry in kept or _PLACEHOLDER.fullmatch(body):
            continue
        reason = _reason(body, rules, lowercase, strip_accents)
        if reason:
            number, first = by_reason.get(reason, Unreachable(0, entry))
            by_reason[reason] = Unreachable(number + 1, first)
    return by_reason


def is_word(entry: str, lowercase: bool, strip_accents: bool | None) -> bool:
    """Return whether text may have the entry as a whole word, or as the rest of one."""
    rules = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    body = entry.removeprefix(CONTINUES)
    return [word for word, _ in _SPLIT.pre_tokenize_str(rules.normalize_str(body))] == [body]


def warn_of_unreachable(
    path: object,
    entries: Sequence[str],
    lowercase: bool,
    strip_accents: bool,
    kept: Collection[str],
    advice: str,
) -> None:
    """Warn in one line where entries of the vocabulary at `path` can never be reached.

    A line also says where capitals are kept, and no entry has one. `advice` ends the first line.
    """
    unreachable = unreachable_entries(entries, lowercase, strip_accents, kept)
    if unreachable:
        total = sum(reason.number for reason in unreachable.values())
        parts = [
            f"{n:,} with {reason} (first {first!a})" for reason, (n, first) in unreachable.items()
        ]
        read = "lower-cased" if lowercase else "cased"
        log.warning(
            "%s: read as the vocabulary of %s text, so %s of %s entries can never be reached: %s%s",
            path,
            read,
            f"{total:,}",
            f"{len(entries):,}",
            ", ".join(parts),
            f"; {advice}" if CAPITALS in unreachable else "",
        )
    if not lowercase and _has_small_letters_only(entries, kept):
        log.warning(
            "%s: read as the vocabulary of cased text, but no entry has a capital letter: words "
            "with one become [UNK]",
            path,
        )


def _reason(
    body: str, rules: normalizers.Normalizer, lowercase: bool, strip_accents: bool
) -> str | None:
    """Why text never has an entry without its `##`; None: it has, or it is of the usual ones."""
    if any(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in body):
        return SPACES
    if len(body) > MAX_WORD_CHARACTERS:
        return LONG
    if lowercase and normalizers.Lowercase().normalize_str(body) != body:
        return CAPITALS
    words = [word for word, _ in _SPLIT.pre_tokenize_str(rules.normalize_str(body))]
    if strip_accents and "".join(words) != body:
        return ACCENTS
    # Each Chinese character is a word by itself.
    apart = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    is_divided = len(words) > 1 and len(apart.normalize_str(body)) > len(body)
    return CHINESE if is_divided else None


def _has_small_letters_only(entries: Sequence[str], kept: Collection[str]) -> bool:
    """Return whether entries have small letters of Latin script, and none a capital letter."""
    words = [e for e in entries if e not in kept and not _PLACEHOLDER.fullmatch(e)]
    text = "".join(words)
    return text == text.lower() and any("a" <= character <= "z" for character in text)
