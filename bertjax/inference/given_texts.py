"""Checks of texts that a program passes in."""

from collections.abc import Iterable, Iterator

from bertjax.errors import check, mismatch


def each_text(texts: Iterable[str], where: str) -> Iterator[str]:
    """Return an iterator over texts that raises `UserError`, naming `where`, for anything else.

    A single string is refused at once: its letters would be taken for texts.
    """
    if isinstance(texts, str | bytes):
        raise mismatch(where=where, found=f"one text, {texts[:40]!r}", expected="a list of texts")
    return _checked(texts, where)


def _checked(texts: Iterable[str], where: str) -> Iterator[str]:
    for number, text in enumerate(texts):
        # One comparison, since a text may be one of millions.
        if type(text) is not str:
            check_text(text, f"{where}[{number}]")
        elif not text.isascii():
            _check_is_unicode(text, f"{where}[{number}]")
        yield text


def _check_is_unicode(text: str, where: str) -> None:
    """Raise `UserError` for half a surrogate pair: a byte of an argument that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"half a surrogate pair, U+{ord(text[error.start]):04X}"
        raise mismatch(where=where, found=found, expected="a text in Unicode") from error


def check_text(text: object, where: str) -> None:
    """Raise `UserError`, naming `where`, unless `text` is a string."""
    check(
        isinstance(text, str),
        where=where,
        found=f"{text!r}"[:60] + f", a {type(text).__name__}",
        expected="a text",
    )
