"""TFRecord files of other BERT data scripts: which ones a split has, and the records in them."""

import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
from etils import epath

from bertjax.data.records import record_format
from bertjax.data.records.manifest import FILE, WORK, Manifest
from bertjax.data.records.record_format import FOOTER_BYTES, HEADER_BYTES
from bertjax.errors import check, mismatch
from bertjax.file_kinds import HEAD_BYTES, kind_of
from bertjax.given_files import check_is_no_pipe
from bertjax.storage import (
    OPENERS,
    blocks_of,
    cached,
    is_local,
    local_copy,
    read_errors,
    version_of,
)

TRAINING_WORDS = frozenset({"train", "trainset"})
HELDOUT_WORDS = frozenset((
    "valid", "validation", "validset", "val", "valset", "eval", "evals", "evaluation", "evalset",
    "dev", "devel", "development", "devset", "test", "tests", "testing", "testset",
    "held", "heldout", "holdout",
))  # fmt: skip
"""Words in a file's name that say that its records are held out."""
# The original's scripts write both; a shard's number, or the ending of a compression, may follow.
ENDINGS = (".tfrecord", ".tf_record")
GZIP = ".gz"
ZLIB_BYTES = 4096
"""Bytes of which ZLIB makes a record's header; its own tables come first."""
MAX_NAMES = 5
"""Number of file names that a line about a split has."""
# Between letters and anything else, and before a capital that begins a word, as in "wikiDevSet".
_LETTERS = re.compile(r"[^\W\d_]+")
_WORD_BEGINS = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def foreign_paths(folder: epath.Path, split: str) -> list[epath.Path]:
    """List the TFRecord files of a folder that belong to `split`, `train` or `validation`.

    A file is held out if one of `HELDOUT_WORDS` is a whole word of its name, unless one of
    `TRAINING_WORDS` is too. If the name has neither, the folder that the file is in decides, below
    `folder`. Folders in `folder` are looked into if it has no such file itself. Raises `UserError`
    if a file's name and its folder disagree.
    """
    with _errors(folder):
        files = _files(folder)
    return [path for path in files if _split_of(path, folder) == split]


def check_all_named(folder: epath.Path, manifest: Manifest) -> None:
    """Raise `UserError` if a prepared folder has a TFRecord file that its manifest does not name.

    Nothing would read such a file.
    """
    shards = {shard.name for shard in manifest.shards}
    with _errors(folder):
        others = [path for path in _entries(folder) if _is_named(path) and path.name not in shards]
    for path in others:
        check(
            # What a killed preparation leaves while it writes a shard.
            path.name.endswith(".unfinished"),
            where=str(path),
            found="a TFRecord file that manifest.json does not name",
            expected="a folder of its own for the files of another script",
        )


def split_told_by(name: str) -> str:
    """Return the split that a file's name tells: `train`, `validation`, or "" for neither."""
    words: set[str] = set()
    for letters in _LETTERS.findall(name):
        # "TEST" and "test" are words, "Test" too; the whole also, for what is written "DEVset".
        words.update(word.lower() for word in [letters, *_WORD_BEGINS.split(letters)])
    if words & TRAINING_WORDS:
        return "train"
    return "validation" if words & HELDOUT_WORDS else ""


def describe_split(folder: epath.Path, split: str, paths: list[epath.Path], rows: int) -> str:
    """Return a line with a split's number of rows, and the names of its files."""
    names = [str(path.relative_to(folder)) for path in paths]
    shown = ", ".join(names[:MAX_NAMES])
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return f"{split}: {rows:,} rows in {files}: {shown}{more}"


def _files(folder: epath.Path) -> list[epath.Path]:
    """The TFRecord files of a folder, in an order that is the same at each start and host."""
    entries = _entries(folder)
    above = frozenset([os.path.realpath(folder)])
    named = [path for path in entries if _is_named(path)]
    files: list[epath.Path] = []
    # Spark writes a folder `NAME.tfrecord` with the files in it.
    for path in named or entries:
        if path.is_dir():
            files += _files_below(path, bool(named), above)
        elif named:
            files.append(path)
    return files


def _files_below(folder: epath.Path, named: bool, above: frozenset[str]) -> list[epath.Path]:
    files: list[epath.Path] = []
    real = os.path.realpath(folder)
    # A link back to a folder that it is in: the files there have been found.
    if real in above:
        return files
    # A prepared folder is no part of another one.
    if (folder / FILE).exists() or (folder / WORK).exists():
        return files
    for path in _entries(folder):
        if path.is_dir():
            files += _files_below(path, named or _is_named(path), above | {real})
        # Beside the records Spark writes `_SUCCESS`.
        elif _is_named(path) or (named and not path.name.startswith("_")):
            files.append(path)
    return files


def _entries(folder: epath.Path) -> list[epath.Path]:
    # Without hidden files: Hadoop's checksums have the names of the files and a dot in front.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_named(path: epath.Path) -> bool:
    return any(ending in path.name.lower() for ending in ENDINGS)


def _split_of(path: epath.Path, folder: epath.Path) -> str:
    names: dict[str, str] = {}
    # Nearest first: the file's own name, then the folders that it is in.
    for part in reversed(path.relative_to(folder).parts):
        split = split_told_by(part)
        if split:
            names.setdefault(split, part)
    check(
        len(names) < 2,
        where=str(path),
        found=f"a file of both splits by its names, {' and '.join(names.values())}",
        expected="names of the file and of its folders that agree",
    )
    return next(iter(names), "train")


def record_spans(path: epath.Path, file: np.ndarray) -> np.ndarray:
    """Return (begin, end) of each record's data in a TFRecord file's bytes, int64 `[n, 2]`.

    Raises `UserError` where the framing breaks off or its checksum is wrong.
    """
    return np.array(list(_spans(path, file)), np.int64).reshape(-1, 2)


def first_record(paths: Sequence[epath.Path]) -> tuple[epath.Path, bytes] | None:
    """Return the file and the data of the first record in some files; None if all are empty.

    Nothing after that record is looked at.
    """
    for path in paths:
        file = map_file(path)
        for begin, end in _spans(path, file):
            return path, file[begin:end].tobytes()
    return None


def _spans(path: epath.Path, file: np.ndarray) -> Iterator[tuple[int, int]]:
    # Records of other scripts differ in length; the header of each record has its length.
    number, position, size = 0, 0, len(file)
    while position < size:
        header = file[position : position + HEADER_BYTES].tobytes()
        length = int.from_bytes(header[:8], "little")
        where = f"{path}: record {number}"
        if not _is_header(header):
            begins_with = f"a broken header at byte {position}"
            if not position:
                begins_with = _kind_name(file) or begins_with
            raise mismatch(where=where, found=begins_with, expected="a TFRecord header")
        begin = position + HEADER_BYTES
        end = begin + length
        check(
            end + FOOTER_BYTES <= size,
            where=where,
            found=f"the file's end at byte {size}",
            expected=f"{length} bytes of data",
        )
        yield begin, end
        number, position = number + 1, end + FOOTER_BYTES


def map_file(path: epath.Path) -> np.ndarray:
    """Map a file's bytes, uint8; those of a GZIP file after it was decompressed into the cache.

    A file in a store is copied to the cache too. Raises `UserError` if it cannot be read.
    """
    check_is_no_pipe(path)
    with _errors(path):
        return _mapped(path)


def _mapped(path: epath.Path) -> np.ndarray:
    # An empty file cannot be mapped.
    if path.stat().length == 0:
        return np.zeros(0, np.uint8)
    local = path
    if not is_local(path):
        local = local_copy(path, _digest(path, "copy"))
    with local.open("rb") as file:
        head = file.read(HEAD_BYTES)
    # TFRecordWriter's compression is not in the name. Its length may begin with the bytes of GZIP
    # in a file that is not compressed, but then the checksum of the length is right.
    kind = kind_of(head)
    if kind and kind.ending == GZIP and not _is_header(head[:HEADER_BYTES]):
        local = cached(_digest(path, "decompressed"), _decompressed(local, head))
        if local.stat().length == 0:
            return np.zeros(0, np.uint8)
    return np.memmap(local, np.uint8, "r")


def _kind_name(file: np.ndarray) -> str:
    """What a file without a TFRecord header is, by its first bytes; "" if that is not known."""
    kind = kind_of(file[:HEAD_BYTES].tobytes())
    if kind:
        return kind.name
    # TFRecordWriter's other compression. Its first bytes may begin anything else, so they are
    # decompressed.
    try:
        content = zlib.decompressobj().decompress(file[:ZLIB_BYTES].tobytes(), HEADER_BYTES)
    except zlib.error:
        return ""
    return "ZLIB data (GZIP is read)" if _is_header(content) else ""


def _errors(path: epath.Path) -> AbstractContextManager[None]:
    """Turn an error of the system, such as for a link that leads nowhere, into a `UserError`."""
    return read_errors(str(path), "", bytes)


def _is_header(header: bytes) -> bool:
    """True if the bytes are a record's length and the right checksum of it."""
    stored = int.from_bytes(header[8:], "little")
    # A wrong length would lead to another place in the file.
    return len(header) == HEADER_BYTES and record_format.tfrecord_crc(header[:8]) == stored


def _digest(path: epath.Path, what: str) -> str:
    """The name in the cache of something made from a file; it changes when the file does."""
    facts = f"{path} {version_of(path)}"
    if is_local(path):
        # A file of the same size may be written in the same second, or at another place.
        facts += f" {os.path.realpath(path)} {os.stat(path).st_mtime_ns}"
    return hashlib.sha256(f"{what} {facts}".encode(errors="surrogateescape")).hexdigest()


def _decompressed(path: epath.Path, head: bytes) -> Iterator[bytes]:
    with read_errors(str(path), GZIP, lambda: head), path.open("rb") as file:
        yield from blocks_of(OPENERS[GZIP](file))
