"""The one exception for what a user can get wrong."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the input: one line naming the file, field or tensor, what was found and
    expected.

    The command line prints the message alone and exits with status 2. Any
    other exception is a bug and shows its traceback.
    """


def mismatch(*, where: str, found: object, expected: str) -> UserError:
    """The error to raise for what was found in one place instead of what was expected."""
    return UserError(f"{where}: found {found}, expected {expected}")


def check(condition: object, *, where: str, found: object, expected: str) -> None:
    """Raise the `UserError` of `mismatch` unless `condition` is true."""
    if not condition:
        raise mismatch(where=where, found=found, expected=expected)


@contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn what the operating system refuses, a full disk above all, into a `UserError` naming
    `path`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); what was whole is kept"
        ) from error


def one_line(error: object, limit: int = 200) -> str:
    """Return the text of `error` on one line, at most `limit` characters of it.

    Libraries explain a damaged file in paragraphs; a `UserError` is a single line.
    """
    return " ".join(str(error).split())[:limit]
