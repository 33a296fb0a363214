"""The entries of a `vocab.txt`: each line's number is the id of its entry.

The rules are those of `tokenizers`, which reads the file for `transformers`: white space at a
line's end is no part of the entry, a blank line has an id that no text gets, and of an entry that
stands there twice the last id counts.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import AddedToken

from bertjax.data.tokenizers.given.registered_tokens import registered_text
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS, fingerprint
from bertjax.errors import check, mismatch

# White_Space of Unicode, which Rust removes. `str.rstrip` removes U+001C to U+001F too.
_SPACES = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)
MARK = "\ufeff"  # the byte order mark

log = logging.getLogger("bertjax")


class Entries(NamedTuple):
    """The entries of a vocabulary's file."""

    entries: list[str]
    """In the order of their ids; "" for a blank line."""
    content: bytes
    """The file's bytes, or, where another program could read them otherwise, the same entries."""


def read_entries(path: object, content: bytes) -> Entries:
    """Return the entries of a `vocab.txt` with these bytes; `path` is its name for errors.

    Blank lines at the end are left out, since no id follows them. A byte order mark before a
    special token is left out; before another entry it stays, and no text becomes that entry.
    """
    lines = _lines(path, content)
    entries = [line.rstrip(_SPACES) for line in lines]
    if entries[0].removeprefix(MARK) in SPECIAL_TOKENS:
        entries[0] = entries[0].removeprefix(MARK)
    while entries and not entries[-1]:
        entries.pop()
    # "\r" alone: bytes that were read before there was this rule keep their fingerprint.
    if entries != read_saved_entries(path, content).entries:
        content = "".join(f"{entry}\n" for entry in entries).encode()
    return Entries(entries, content)


def read_saved_entries(path: object, content: bytes) -> Entries:
    """Return the entries of a `vocab.txt` that bertjax saved, each as its line has it.

    Bytes that `read_entries` returned have the same entries by both rules. Earlier versions took
    white space at a line's end for a part of the entry, which text therefore never became. A run
    that began with such a vocabulary goes on with the same ids and the same fingerprint.
    """
    return Entries([line.rstrip("\r") for line in _lines(path, content)], content)


def _lines(path: object, content: bytes) -> list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise mismatch(
            where=str(path),
            found=f"bytes that are not UTF-8 ({error})",
            expected="an entry a line in UTF-8",
        ) from error
    # `splitlines` would also divide at characters like U+2028.
    return text.removesuffix("\n").split("\n")


def wordpiece_fingerprint(
    content: bytes,
    lowercase: bool,
    strip_accents: bool | None,
    registered: Sequence[AddedToken] = (),
) -> str:
    """Return the fingerprint of a `WordPiece` over a `vocab.txt` with these bytes."""
    # Where accents follow the case, the fingerprint is that of before there was the setting.
    follows = strip_accents in (None, lowercase)
    own = "" if follows else f" strip_accents {strip_accents}"
    own += registered_text(registered)
    return fingerprint("wordpiece", lowercase, content + own.encode())


def with_new_entries(path: object, content: bytes, new: Sequence[str]) -> bytes:
    """Return the content of a `vocab.txt` with further entries, whose ids are the next ones.

    Raises `UserError` where a line cannot hold an entry, or where repeated or blank lines make the
    next id another one in other programs.
    """
    entries, read = read_entries(path, content)
    if not new:
        return read
    last = content.decode().removesuffix("\n").rpartition("\n")[2]
    check(
        last.rstrip(_SPACES) != "",
        where=str(path),
        found=f"a blank line at the end, and the token {new[0]!r} added",
        expected="an entry in the last line",
    )
    check(
        len(set(entries)) == len(entries),
        where=str(path),
        found=f"repeated entries, and the token {new[0]!r} added",
        expected="each entry once",
    )
    for entry in new:
        check(
            entry == entry.rstrip(_SPACES) and "\n" not in entry and entry != "",
            where=str(path),
            found=f"the added token {entry!r}",
            expected="one without white space at its end",
        )
    # A file may lack the last end of a line.
    return "".join(f"{entry}\n" for entry in [*entries, *new]).encode()


def warn_of_odd_lines(path: object, entries: Sequence[str]) -> None:
    """Warn of blank and repeated entries, with their number."""
    blank = entries.count("")
    repeated = len(entries) - blank - len(set(entries) - {""})
    if blank:
        log.warning("%s: %d blank lines; each has an id, which no text gets", path, blank)
    if repeated:
        log.warning(
            "%s: %d lines repeat an entry, whose last id counts, as in transformers; first %r",
            path,
            repeated,
            _first_repeated(entries),
        )


def _first_repeated(entries: Sequence[str]) -> str:
    seen: set[str] = set()
    for entry in entries:
        if entry and entry in seen:
            return entry
        seen.add(entry)
    return ""
