"""The file of a lock, on a local disk or in a store: created by one process only.

Ages are by the clock of the disk or store, since those of two hosts may differ.
"""

import hashlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from bertjax.storage.paths import is_local

LEFT_SECONDS = 60.0
"""Age from which on a file beside a lock is left by a kill: it is there for milliseconds."""


class Found(NamedTuple):
    """A lock's file as it was found."""

    content: bytes
    changed: float
    """Time of its last renewal, by the clock of the disk or store."""
    version: str = ""
    """The store's name for this content."""

    @property
    def identity(self) -> tuple[bytes, str]:
        """What differs where it was written again."""
        return self.content, self.version


class LockFile(ABC):
    """The file of a lock."""

    @abstractmethod
    def create(self, content: bytes) -> bool:
        """Create the file with its content at once; return False if there is one."""

    @abstractmethod
    def read(self) -> Found | None:
        """Return the file as it is; None if there is none."""

    @abstractmethod
    def content(self) -> bytes | None:
        """Return the content alone, which costs less than `read`; None if there is no file."""

    @abstractmethod
    def clock(self) -> float:
        """Return the time, by the clock of the disk or store."""

    @abstractmethod
    def renew(self, content: bytes) -> bool:
        """Make the file new, if its content is still `content`; return False if not."""

    @abstractmethod
    def take_over(self, dead: Found, content: bytes) -> bool:
        """Put `content` in the place of a dead lock; return False if another process was first."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file."""


def lock_file(path: epath.Path) -> LockFile:
    """Return the file of a lock at `path`."""
    return _LocalFile(Path(path)) if is_local(path) else _StoreFile(path)


class _LocalFile(LockFile):
    """A lock on a local or a network disk."""

    def __init__(self, path: Path):
        self._path = path

    def create(self, content: bytes) -> bool:
        return self._create(self._path, content)

    def _create(self, path: Path, content: bytes) -> bool:
        own = self._own_name()
        try:
            own.write_bytes(content)
            # Fails where the name exists, and gives a file that is whole.
            os.link(own, path)
        except FileExistsError:
            return False
        except OSError:
            # Some disks have no hard links; on others the same error comes again.
            return _create_empty(path, content)
        finally:
            own.unlink(missing_ok=True)
        return True

    def read(self) -> Found | None:
        try:
            # Opened before its time is asked: NFS then asks the server.
            with self._path.open("rb") as file:
                changed = os.fstat(file.fileno()).st_mtime
                return Found(file.read(), changed)
        except FileNotFoundError:
            return None

    def content(self) -> bytes | None:
        found = self.read()
        return None if found is None else found.content

    def clock(self) -> float:
        own = self._own_name()
        try:
            own.touch()
            return own.stat().st_mtime
        finally:
            own.unlink(missing_ok=True)

    def renew(self, content: bytes) -> bool:
        found = self.read()
        if found is None or found.content != content:
            return False
        # Of another's lock, were it taken over right now, this changes the time alone.
        with suppress(FileNotFoundError):
            os.utime(self._path)
        return True

    def take_over(self, dead: Found, content: bytes) -> bool:
        # A rename cannot tell what it replaces. So who may replace this one lock is decided by
        # another file, which one process can create.
        digest = hashlib.sha256(dead.content).hexdigest()[:12]
        right = self._path.with_name(f"{self._path.name}.{digest}")
        if not self._create(right, content):
            self._remove_if_old(right)
            return False
        try:
            found = self.read()
            # Another process had the right before, and has used it.
            if found is None or found.content != dead.content:
                return False
            own = self._own_name()
            own.write_bytes(content)
            own.replace(self._path)
        finally:
            right.unlink(missing_ok=True)
        return True

    def _remove_if_old(self, right: Path) -> None:
        """Remove what a process has left that was killed while it took a lock over."""
        with suppress(FileNotFoundError):
            if self.clock() - right.stat().st_mtime > LEFT_SECONDS:
                right.unlink()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _own_name(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex[:12]}")


def _create_empty(path: Path, content: bytes) -> bool:
    """Create a file, and then write it; return False if there is one."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        # A reader that meets the empty file goes by its age.
        with file:
            file.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


class _StoreFile(LockFile):
    """A lock in a store.

    S3 writes it on the condition that the content is still the expected one. Google's store creates
    it so, but is renewed by reading and writing; this is untested, as no such store is at hand.
    """

    def __init__(self, path: epath.Path):
        import fsspec

        self._system, self._name = fsspec.core.url_to_fs(os.fspath(path))
        protocols = self._system.protocol
        self._has_conditions = "s3" in (protocols if isinstance(protocols, tuple) else [protocols])

    def create(self, content: bytes) -> bool:
        try:
            self._system.pipe_file(self._name, content, mode="create")
        except FileExistsError:
            return False
        except OSError:
            # Some stores refuse the condition itself. Others have the same error again.
            if self.read() is not None:
                return False
            self._system.pipe_file(self._name, content)
        # Some do not know the condition, and write without it.
        return self._holds(content)

    def read(self) -> Found | None:
        try:
            # Facts first: a version that is too old is refused later, one too new would not be.
            facts = self._system.info(self._name)
            content = self._system.cat_file(self._name)
        except FileNotFoundError:
            return None
        return Found(content, _time_of(self._system, facts), str(facts.get("ETag", "")))

    def content(self) -> bytes | None:
        try:
            return self._system.cat_file(self._name)
        except FileNotFoundError:
            return None

    def clock(self) -> float:
        own = f"{self._name}.{uuid.uuid4().hex[:12]}"
        self._system.pipe_file(own, b"")
        try:
            return _time_of(self._system, self._system.info(own))
        finally:
            self._system.rm_file(own)

    def renew(self, content: bytes) -> bool:
        found = self.read()
        if found is None or found.content != content:
            return False
        try:
            self._write(content, found)
        except OSError:
            # A refusal has no type of its own, so the content must tell.
            if self._holds(content):
                raise
            return False
        return self._holds(content)

    def take_over(self, dead: Found, content: bytes) -> bool:
        # Refused where another process was first: the content tells.
        with suppress(OSError):
            self._write(content, dead)
        return self._holds(content)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._system.rm_file(self._name)

    def _write(self, content: bytes, expected: Found) -> None:
        """Write the file; raise `OSError` if it is not the expected one any more."""
        if not self._has_conditions:
            self._system.pipe_file(self._name, content)
            return
        try:
            self._system.pipe_file(self._name, content, IfMatch=expected.version)
        except OSError:
            found = self.read()
            if found is None or found.identity != expected.identity:
                raise
            # It is the expected one, so this store refuses conditions, or has the same error again.
            self._system.pipe_file(self._name, content)

    def _holds(self, content: bytes) -> bool:
        return self.content() == content


def _time_of(system: Any, facts: Mapping[str, Any]) -> float:
    """Return the time of a file's last change, of which a store has told these facts."""
    # S3's name for it; another store is asked again.
    changed = facts.get("LastModified") or system.modified(facts["name"])
    return changed.timestamp()
