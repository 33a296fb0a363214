"""Memory of which shards were compared with the manifest's SHA-256, so that it is done once.

It is a small file for each shard, beside the shards or, where nothing can be written there, in the
user's cache. It holds the digest that was checked, and the size, times and inode of the file. A
copy of the folder takes it along, but the copied shards have other inodes and a later ctime, so
they are checked again.
"""

import hashlib
import json
import os
import stat
import time
import uuid
from pathlib import Path
from typing import IO, Any

from etils import epath

from bertjax.storage import cache_folder

FOLDER = ".checked"
"""Subfolder of the memory, in the prepared folder or in the cache."""
MAX_BYTES = 4096
"""Bytes of a memory that are read; it has about 200."""
RECENT_NS = 2_000_000_000
"""A file that changed so shortly before is not remembered, ns.

The times of files advance in ticks, of 4 ms on Linux and of 2 s on FAT. Within the tick a file may
change again unnoticed.
"""

Facts = dict[str, int]
"""What changes when a file does: `bytes`, `mtime_ns`, `ctime_ns`, `inode`."""


def facts_of(file: IO[bytes]) -> Facts | None:
    """Return the facts of an open file; None where they do not tell whether it changes."""
    facts = os.fstat(file.fileno())
    # A future time is recent too: the clocks of this host and of the file's differ.
    if not stat.S_ISREG(facts.st_mode) or time.time_ns() - facts.st_ctime_ns < RECENT_NS:
        return None
    return {
        "bytes": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        # No program can set the ctime. So a file that was written over and then got its old mtime
        # back is noticed.
        "ctime_ns": facts.st_ctime_ns,
        "inode": facts.st_ino,
    }


def is_remembered(path: epath.Path, sha256: str) -> bool:
    """Return whether the file, as it is now, was found to have this digest."""
    try:
        with path.open("rb") as file:
            facts = facts_of(file)
    except OSError:
        return False  # who reads it gets the error
    if facts is None:
        return False
    return any(_read(place) == _content(sha256, facts) for place in _places(path))


def remember(path: epath.Path, sha256: str, facts: Facts) -> None:
    """Note, at the first place that can be written, that a file with these facts has the digest.

    If there is none, the file is checked at each start.
    """
    for place in _places(path):
        if _is_written(place, json.dumps(_content(sha256, facts)).encode()):
            return


def _content(sha256: str, facts: Facts) -> dict[str, Any]:
    return {"sha256": sha256, **facts}


def _places(path: epath.Path) -> list[Path]:
    """Return where the memory of a file may be: beside it, and in the user's cache."""
    beside = Path(path.parent, FOLDER, f"{path.name}.json")
    # Named by the whole path, because other folders have shards of the same name.
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()
    return [beside, Path(cache_folder(), FOLDER, f"{name}.json")]


def _read(place: Path) -> Any:
    try:
        # A pipe, in a folder from a stranger, would wait for ever; a device would never end.
        if not place.is_file():
            return None
        with place.open("rb") as file:
            return json.loads(file.read(MAX_BYTES))
    # It is broken, so nothing is remembered.
    except (OSError, ValueError, RecursionError):
        return None


def _is_written(place: Path, content: bytes) -> bool:
    # A link, in a folder from a stranger, could lead to any other folder of the user.
    if place.parent.is_symlink():
        return False
    # A name of its own: several processes of a run may have checked the same shard.
    unfinished = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError:
        return False
    return True
