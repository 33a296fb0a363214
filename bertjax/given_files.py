"""Places and files that come from outside: what cannot be read is refused in one line."""

import functools
import json
import os
import stat
from typing import Any

from etils import epath

from bertjax.errors import UserError, check, mismatch, one_line

# Set before epath opens its first path. By default epath uses TensorFlow for gs:// and s3://, which
# takes seconds to import and cannot read s3://. Without TensorFlow it uses fsspec, whose cache of
# folder listings would hide files that other processes write, so that cache is off.
os.environ.setdefault("EPATH_USE_TF", "false")
for _store in ("S3", "GS"):
    os.environ.setdefault(f"FSSPEC_{_store}_USE_LISTINGS_CACHE", "false")

# Of Linux: NAME_MAX, and PATH_MAX without the null byte at its end.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095


def place_of(name: epath.PathLike, *, any_bytes: bool = False) -> epath.Path:
    """Return the path of a folder or file that a user names.

    Raises `UserError` for a name that is no UTF-8 (unless `any_bytes`) or has a null character, for
    one that is too long, and for a kind of store that files are not read from.
    """
    text = os.fspath(name)
    shown = one_line(text.encode(errors="backslashreplace").decode(), limit=100)
    # Python has a byte that is no UTF-8 as a surrogate, which TensorStore and JSON cannot write.
    check(
        any_bytes or _is_encodable(text),
        where=shown,
        found="a name that is no UTF-8",
        expected="one in UTF-8",
    )
    check("\0" not in text, where=shown, found="a null character", expected="a name without")
    if "://" not in text:
        encoded = os.fsencode(text)
        longest = max(map(len, encoded.split(b"/")))
        for size, limit in ((longest, MAX_NAME_BYTES), (len(encoded), MAX_PATH_BYTES)):
            check(
                size <= limit,
                where=shown,
                found=f"a name of {size:,} bytes",
                expected=f"at most {limit:,}",
            )
    try:
        path = epath.Path(text)
    # epath finds a class of paths by the part before `://`.
    except KeyError as error:
        raise mismatch(
            where=shown,
            found=f"a place that files are not read from, {shown.partition('://')[0]}",
            expected="a path, gs:// or s3://",
        ) from error
    check_store(text)
    return path


def check_store(name: str) -> None:
    """Raise `UserError` for a place in a store that cannot be asked; a path on a disk is right."""
    scheme, is_store, rest = name.partition("://")
    if is_store:
        bucket = rest.partition("/")[0]
        check(bucket, where=name, found="no bucket", expected=f"{scheme}://BUCKET/...")
        _reach(scheme, bucket)


@functools.cache
def _reach(scheme: str, bucket: str) -> None:
    """Ask for a bucket; raise `UserError` where its store cannot be asked at all.

    Each store's library has errors of its own for missing credentials, which are no `OSError`.
    """
    where = f"{scheme}://{bucket}"
    try:
        epath.Path(where).exists()
    except OSError:
        return  # reading and writing files there tell why
    except ImportError as error:
        raise UserError(f"{where}: {one_line(error)} (pip install 'bertjax[{scheme}]')") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 150)}"
        raise UserError(f"{where}: the store cannot be reached ({reason})") from error


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_is_no_pipe(path: epath.Path) -> None:
    """Raise `UserError` for a named pipe, which is waited for without end if nobody writes to it.

    The pipe of a shell's `<(command)` has no name, and its writer is there.
    """
    name = os.fspath(path)
    if "://" in name:
        return
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return  # opening it tells why
    # Of a pipe without a name `/dev/fd/63` is a link to a place that does not exist.
    check(
        not stat.S_ISFIFO(mode) or not os.path.exists(os.path.realpath(name)),
        where=name,
        found="a named pipe",
        expected="a file",
    )


def read_file(path: epath.Path, what: str = "a file") -> bytes:
    """Return the bytes of a file; `UserError` naming it, and `what` it is to be, where it fails."""
    check_is_no_pipe(path)
    try:
        return path.read_bytes()
    except OSError as error:
        reason = one_line(error.strerror or error)
        raise UserError(f"{path}: cannot be read as {what} ({reason})") from error


def read_json_value(path: epath.Path, what: str = "JSON") -> Any:
    """Return the value in a JSON file; raise `UserError` as `read_file`."""
    content = read_file(path, what)
    try:
        return json.loads(content)
    # A file that nests thousands of lists exhausts the parser's recursion.
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{path}: cannot be read as {what} ({reason})") from error
