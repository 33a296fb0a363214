"""The exception for mistakes of the user, and the form of its message."""

import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MAX_FOUND = 500
"""Characters of what was found that a message quotes: it may be a text of any length."""


class UserError(Exception):
    """A mistake in the input, reported in one line: `WHERE: found X, expected Y`.

    WHERE names the file, field or tensor. The command line prints the message alone and exits with
    `status`. Any other exception is a bug of bertjax and shows its traceback.
    """

    status = 2
    """Exit status of the command line."""


class MismatchError(UserError):
    """Something was found that is not as expected: the same input gives the same error again.

    Other `UserError`s may be gone at the next start: a full disk, a package that is not installed.
    """


def mismatch(*, where: str, found: object, expected: str) -> MismatchError:
    """Return the error, to be raised, for what was found at `where` instead of `expected`.

    Of more than `MAX_FOUND` characters the message has the first ones.
    """
    text = str(found)
    if len(text) > MAX_FOUND:
        text = f"{text[:MAX_FOUND]}..."
    return MismatchError(f"{where}: found {text}, expected {expected}")


def check(condition: object, *, where: str, found: object, expected: str) -> None:
    """Raise the error of `mismatch` unless `condition` is true."""
    if not condition:
        raise mismatch(where=where, found=found, expected=expected)


def excerpt(text: str, limit: int = 60) -> str:
    """Return a text of the user in quotes, with no more than its first `limit` characters."""
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}..."


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message: `; the nearest is NAME`, or nothing where no name is similar."""
    # At difflib's own cutoff of 0.6 a short name with two wrong letters has no neighbour.
    similar = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; the nearest is {similar[0]}" if similar else ""


@contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn an `OSError` of the block, such as a full disk, into a `UserError` naming `path`."""
    try:
        yield
    # strerror is None for errors of libraries, which have a text alone.
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); what was whole is kept"
        ) from error


def one_line(error: object, limit: int | None = 300) -> str:
    """Return the text of `error` on one line, at most `limit` characters of it (None: all).

    Libraries explain a damaged file in paragraphs; a `UserError` is a single line.
    """
    return " ".join(str(error).split())[:limit]


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a package that the block fails to import into a `UserError`.

    `extra` names the optional dependencies of bertjax that contain the package:

        with needs_extra("data"):
            import tensorflow
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(str(error.name), extra) from error


def require_package(name: str, *, extra: str) -> None:
    """Raise the `UserError` of `needs_extra` unless the package is installed; do not import it."""
    if importlib.util.find_spec(name) is None:
        raise _missing(name, extra)


def _missing(package: str, extra: str) -> UserError:
    # No `MismatchError`: once the package is installed, the same input does not give it again.
    return UserError(
        f"{package}: found no such package, expected it to be installed: "
        f"pip install 'bertjax[{extra}]'"
    )
