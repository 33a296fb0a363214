"""Files in zip and tar archives, read where they are: nothing is unpacked to a disk."""

import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, NamedTuple

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.endings import ARCHIVES, format_of
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.file_kinds import HEAD_BYTES, FileKind, kind_of
from bertjax.storage import OPENERS, compression_of, is_compressed, opened, read_errors

READ_BYTES = 1 << 18
# What a header may bring along, such as a long name: tarfile reads it into memory at once.
MAX_HEADER_BYTES = 1 << 20
# Types of headers that only describe the next one (POSIX pax, and GNU's before it).
_DESCRIBING = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


class Member(NamedTuple):
    """A file in an archive."""

    file: SourceFile
    format: str
    """Its format, by the ending of its name: a key of `readers.READERS`."""


def read_zip(name: str, config: DataConfig, extent: Extent) -> Iterator[Member]:
    """Yield the files of a zip archive, in the order of its directory.

    The extent counts the entries of the directory. Hidden files, and links, are left out.
    """
    with opened(name) as raw, _archive_errors(name, name), zipfile.ZipFile(raw) as archive:
        for info in archive.infolist()[extent.begin : None if extent.end < 0 else extent.end]:
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            if info.is_dir() or is_link or _is_hidden(info.filename):
                continue
            check(
                not info.flag_bits & 1,
                where=_where(name, info.filename),
                found="an encrypted file",
                expected="one without a password",
            )
            yield _member(name, info.filename, config, _zip_opener(archive, info), False)


def zip_sizes(name: str) -> list[int]:
    """Return the size of each entry of a zip archive, unpacked, as its directory says."""
    with opened(name) as raw, _archive_errors(name, name), zipfile.ZipFile(raw) as archive:
        return [info.file_size for info in archive.infolist()]


def read_tar(name: str, config: DataConfig, extent: Extent) -> Iterator[Member]:
    """Yield the files of a tar archive, compressed or not, in their order.

    The extent counts all members. Hidden files, links and the like are left out. Each file must be
    read before the next one is asked for.
    """
    is_stream = is_compressed(name)
    with _opened_tar(name) as archive:
        for number, info in enumerate(_headers(archive)):
            if number == extent.end:
                return
            if number >= extent.begin and info.isreg() and not _is_hidden(info.name):
                yield _member(name, info.name, config, _tar_opener(archive, info), is_stream)
        _check_end(archive, name)


def tar_sizes(name: str) -> list[int]:
    """Return the size of each member of a tar archive that is not compressed."""
    with _opened_tar(name) as archive:
        return [info.size for info in _headers(archive)]


class _Header(tarfile.TarInfo):
    """A header of a tar archive, of which tarfile forgives nothing.

    By itself, tarfile takes a broken header for the end of the archive, and so for a file cut off.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # A block of zeros is the mark of the end.
            if len(buf) == tarfile.BLOCKSIZE and not buf.strip(b"\0"):
                raise
            reason = str(error) if buf else "it ends without the mark of its end"
            raise tarfile.ReadError(reason) from error
        if header.type in _DESCRIBING and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a name or attributes of {header.size:,} bytes")
        return header


@contextmanager
def _opened_tar(name: str) -> Iterator[tarfile.TarFile]:
    # Of no literal type: tarfile has an overload for each mode.
    mode: Any = "r|" if is_compressed(name) else "r:"
    with (
        opened(name) as raw,
        _archive_errors(name, name),
        tarfile.open(fileobj=raw, mode=mode, tarinfo=_Header, bufsize=READ_BYTES) as archive,
    ):
        yield archive


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        # tarfile keeps them all, and an archive may have millions.
        archive.members.clear()  # type: ignore[attr-defined]
        yield info


def _check_end(archive: tarfile.TarFile, name: str) -> None:
    """Raise `UserError` unless only zeros follow; the end of a compressed file is checked so too.

    A second archive behind the first would be left out without a word.
    """
    rest = archive.fileobj
    while rest is not None and (block := rest.read(READ_BYTES)):
        check(
            not block.strip(b"\0"),
            where=name,
            found="bytes after the archive's end",
            expected="a single archive",
        )


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Opener:
    return lambda: archive.open(info)


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Opener:
    # None only for what is no file.
    return lambda: archive.extractfile(info)  # type: ignore[return-value]


def _member(
    archive: str, member: str, config: DataConfig, open_member: Opener, is_stream: bool
) -> Member:
    where, compression = _where(archive, member), compression_of(member)
    format = format_of(member, config.format)
    check(
        format not in ARCHIVES,
        where=where,
        found="an archive in an archive",
        expected="it unpacked, or beside the other",
    )

    def head() -> bytes:
        return b""

    @contextmanager
    def opened_member() -> Iterator[IO[bytes]]:
        errors = read_errors(where, compression, head)
        with _archive_errors(where), errors, open_member() as raw:
            yield OPENERS[compression](raw) if compression else raw

    return Member(SourceFile(where, opened_member, is_stream or compression != ""), format)


def _where(archive: str, member: str) -> str:
    # A name from an untrusted file: it may hold anything.
    return f"{archive}, {''.join(c if c.isprintable() else '?' for c in member)}"


def _is_hidden(member: str) -> bool:
    parts = member.split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


@contextmanager
def _archive_errors(where: str, archive: str = "") -> Iterator[None]:
    """Turn the errors of `zipfile` and `tarfile` into a `UserError`.

    Of an archive itself its path tells what it is, if its ending does not say so.
    """
    try:
        yield
    # NotImplementedError: a compression that zipfile does not know.
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
        kind = _kind_by_bytes(archive) if archive and not is_compressed(archive) else None
        ending = posixpath.splitext(archive)[1].lower()
        if kind and kind.ending != ending:
            expected = f"what its ending says, {ending}"
            raise mismatch(where=where, found=kind.name, expected=expected) from error
        raise UserError(f"{where}: is damaged or cannot be read ({one_line(error)})") from error


def _kind_by_bytes(path: str) -> FileKind | None:
    with opened(path) as file:
        return kind_of(file.read(HEAD_BYTES))
