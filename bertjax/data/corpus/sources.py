"""Sources of a corpus: files, folders, TensorFlow Datasets, databases, CPython's documentation."""

import glob
import hashlib
import os
import sys
from dataclasses import dataclass

from etils import epath

from bertjax.config import DataConfig
from bertjax.config.sql_source import is_sql, without_password
from bertjax.data.corpus.formats.endings import format_of
from bertjax.data.corpus.formats.tfds import tfds_bytes
from bertjax.errors import UserError, check, mismatch
from bertjax.given_files import check_is_no_pipe, check_store
from bertjax.storage import version_of


@dataclass(frozen=True)
class Source:
    """One file of a corpus, or one data set."""

    name: str
    """Path of the file, or `tfds:NAME`, `python-docs`, or `sql:...` without password."""
    format: str
    """Key in `readers.READERS`: a `DataConfig.format` except `auto`, or `tfds` or `python-docs`.
    Or key in `readers.ARCHIVE_READERS`. Or `sql`, which has no reader: `preparation.snapshots`
    makes it a Parquet file.
    """
    size: int = 0
    """Bytes on the disk, of a snapshot those of its text; 0 if unknown."""


def find_sources(config: DataConfig) -> list[Source]:
    """Return the sources that `config.corpus` names, each once, sorted by name.

    For a folder, also one that a glob matches, the result has all files in it and in its
    subfolders, except hidden ones. Raises `UserError` for a name that matches no file or that
    cannot be read.
    """
    # By name, for two patterns may match the same file.
    sources: dict[str, Source] = {}
    for name in config.corpus:
        if name == "python-docs":
            sources[name] = Source(name, name)
        elif name.startswith("tfds:"):
            sources[name] = Source(name, "tfds", tfds_bytes(name))
        elif is_sql(name):
            shown = without_password(name)
            sources[shown] = Source(shown, "sql")
        else:
            for source in _file_sources(config, name):
                sources[source.name] = source
    # Sorted, so that the work units are the same in whatever order the corpus is named.
    return [sources[name] for name in sorted(sources)]


def fingerprint(source: Source) -> str:
    """Return a digest that changes with the source.

    For a file it depends on the size and modification time, for `python-docs` on the version of
    Python. For a TFDS data set it depends on the name alone; the name contains the version if the
    user gave one. So for a query: what its database holds now is not asked, since the preparation
    reads a snapshot, whose checksum is in the manifest.
    """
    facts = source.name
    if source.format == "python-docs":
        # Each CPython brings other documentation, and a preparation may go on under another one.
        facts += f" {sys.version}"
    elif source.format not in ("tfds", "sql"):
        facts += f" {version_of(epath.Path(source.name))}"
    # With the bytes of a file's name that is not UTF-8.
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def _file_sources(config: DataConfig, name: str) -> list[Source]:
    try:
        epath.Path(name)
    # epath finds a class of paths by the part before `://`.
    except KeyError as error:
        raise mismatch(
            where=f"data.corpus {without_password(name)}",
            found=f"a place that files are not read from, {name.partition('://')[0]}",
            expected="a path, gs://, s3:// or tfds:NAME, or a query of a database,"
            " sql:URL?query=SELECT ...",
        ) from error
    check_store(name)
    try:
        files = _files(name)
        is_folder = epath.Path(name).is_dir()
        check(
            len(files) > 0,
            where=f"data.corpus {without_password(name)}",
            found="a folder without files" if is_folder else "no such file",
            expected="a file, a folder, a glob, tfds:NAME, sql:URL?query=... or python-docs",
        )
        formats = [format_of(path.name, config.format) for path in files]
        return [
            Source(str(path), format, path.stat().length)
            for path, format in zip(files, formats, strict=True)
        ]
    # Such as a name that is too long, or a folder that may not be read.
    except OSError as error:
        raise UserError(
            f"data.corpus {without_password(name)}: cannot be looked into"
            f" ({error.strerror or error})"
        ) from error


def _files(name: str) -> list[epath.Path]:
    path = epath.Path(name)
    if path.is_dir():
        return _files_below(path, frozenset())
    # Before it is taken for a pattern: a file's own name may hold `[` or `*`.
    if path.exists():
        check_is_no_pipe(path)
        return [path]
    files: list[epath.Path] = []
    # `glob` returns the file system's order.
    for match in sorted(_glob(name)):
        files += _files(match)
    return files


def _files_below(folder: epath.Path, above: frozenset[str]) -> list[epath.Path]:
    """The files below a folder, which is in the folders `above`."""
    files: list[epath.Path] = []
    real = os.path.realpath(folder)
    # A link back to a folder that it is in: the files there have been found.
    if real in above:
        return files
    for path in folder.iterdir():
        # In an object store, the listing of a folder may contain an empty object with its own name.
        if path.name.startswith(".") or path == folder:
            continue
        is_file, is_folder = path.is_file(), path.is_dir()
        check(
            # Else its documents would be missing without a word.
            is_file or is_folder,
            where=f"data.corpus {path}",
            found="a link that leads nowhere, a pipe or a device",
            expected="a file or a folder",
        )
        # Both may be true in a store, where an object and a prefix can have the same name.
        if is_file:
            files.append(path)
        if is_folder:
            files += _files_below(path, above | {real})
    return sorted(files)


def _glob(pattern: str) -> list[str]:
    scheme, remote, rest = pattern.partition("://")
    if not remote:
        # Not pathlib's, which refuses patterns that begin at the root.
        matches = glob.glob(pattern, recursive=True)
        for match in matches:
            check(
                os.path.exists(match),
                where=f"data.corpus {match}",
                found="a link that leads nowhere",
                expected="a file or a folder",
            )
        return matches
    bucket, _, below = rest.partition("/")
    if not glob.has_magic(below):
        return []
    return [str(path) for path in epath.Path(f"{scheme}://{bucket}").glob(below)]
