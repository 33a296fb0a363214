"""Files that only watch a run: a failure to write one is said once, and training goes on."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from etils import epath

from bertjax.errors import UserError, one_line
from bertjax.storage import LockError, check_locks, is_local, write_whole

log = logging.getLogger("bertjax")

WAIT_SECONDS = 5.0
"""A run waits at most this long for a write; a disk that answers takes milliseconds."""
WAIT_AGAIN_SECONDS = 0.2
"""A run waits this long for each write after one that was not done in time."""
MAX_PARTS = 100_000  # some 50 MB of metrics, which are kept while they cannot be written


class SideFile:
    """A file or folder that a run can do without, such as its metrics or its report.

    Its failure is logged once, and once more if it comes back after it was over.
    """

    def __init__(self, path: epath.Path):
        self.path = path
        self.failed = False
        """True from a failure on, until the next write that ends well."""
        self._thread: threading.Thread | None = None
        self._late = False

    @property
    def busy(self) -> bool:
        """True while an earlier write waits for the disk."""
        return self._thread is not None and self._thread.is_alive()

    def attempt(self, write: Callable[[], object]) -> bool:
        """Call `write`, and return True if it ended well within `WAIT_SECONDS`.

        It runs in a thread, because a call of the system that waits for a disk cannot be ended.
        While it runs on, further attempts return False and do nothing.
        """
        if self.busy:
            return False
        errors: list[Exception] = []

        def run() -> None:
            try:
                write()
            # Of any type: libraries have their own, and none may end the run.
            except Exception as error:
                errors.append(error)

        # A daemon, so that it does not keep a process alive that is done.
        self._thread = threading.Thread(target=run, name=f"write {self.path.name}", daemon=True)
        self._thread.start()
        self._thread.join(WAIT_AGAIN_SECONDS if self._late else WAIT_SECONDS)
        self._late = self._thread.is_alive()
        if self._late:
            self._fail(f"not within {WAIT_SECONDS:.0f} s")
        elif errors and isinstance(errors[0], LockError):
            # The run ends in the next moment: its checkpoints ask for the lock too.
            self.failed = True
        elif errors:
            self._fail(_reason(errors[0]))
        elif self.failed:
            self.failed = False
            log.info("%s: can be written again", self.path)
        return not self.failed

    @contextmanager
    def errors_said(self) -> Iterator[None]:
        """Log an error of the block, which makes what is to be written, as one of the file."""
        try:
            yield
        except Exception as error:
            self._fail(_reason(error))

    def _fail(self, reason: str) -> None:
        # Before the line is logged: it may go to this file too.
        said, self.failed = self.failed, True
        if not said:
            log.warning("%s: cannot be written (%s); training goes on", self.path, reason)


class AppendedFile(SideFile):
    """A file of a run to which parts are appended: lines, or records.

    Parts that cannot be written are kept in memory, and written when that is possible again. A part
    that was not written whole is cut off before.
    """

    def __init__(self, path: epath.Path, content: bytes | None = None, *, synced: bool = False):
        """Make the file, or with `content` make it hold this alone.

        With `synced`, parts are on the disk after each `append` that returns True.
        """
        super().__init__(path)
        self._content = content
        self._synced = synced
        self._waiting: list[bytes] = []
        # Size before a write that was begun and has not ended well.
        self._whole: int | None = None
        self.append([])

    def append(self, parts: Iterable[bytes]) -> bool:
        """Append parts; return True if they are written."""
        self._waiting.extend(parts)
        # Not while a thread writes them: it takes from the list what it has written.
        if not self.busy and len(self._waiting) > MAX_PARTS:
            del self._waiting[:-MAX_PARTS]
        return self.attempt(self._write)

    def _write(self) -> None:
        """Write the parts that wait; in the thread of `attempt`, of which there is one at most."""
        check_locks(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._content is not None:
            _replace(self.path, self._content)
            self._content = None
        parts = list(self._waiting)
        with self.path.open("ab") as file:
            size = file.seek(0, os.SEEK_END)
            # Less where someone has made the file shorter meanwhile.
            self._whole = size if self._whole is None else min(size, self._whole)
            if self._whole < size:
                file.truncate(self._whole)
            file.write(b"".join(parts))
            file.flush()
            # A file of a store has no descriptor.
            if self._synced and is_local(self.path):
                os.fsync(file.fileno())
        self._whole = None
        del self._waiting[: len(parts)]


def to_lines(texts: Iterable[str]) -> list[bytes]:
    """Return each text as a line of a file."""
    return [f"{text}\n".encode() for text in texts]


def _replace(path: epath.Path, content: bytes) -> None:
    """Make `path` hold `content`, whole or not at all; a file that holds it is left alone."""
    # A disk that is full, or a file that may only be appended to, is no reason to fail then.
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)


def _reason(error: Exception) -> str:
    """Return in a few words why something could not be written."""
    # `disk_errors` has put the path before the system's words, and the caller does so again.
    cause = error.__cause__ if isinstance(error, UserError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, UserError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"
