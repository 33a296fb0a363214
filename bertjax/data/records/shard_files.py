"""Files of shards: mapped into memory, copied from stores, compared with the manifest.

A record's own checksum tells that its bytes are whole, and not that they belong at this place: a
shard of another preparation, or a record copied over another, has good ones. So the SHA-256 of each
whole shard is compared before its first record is used.
"""

import hashlib
import logging
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
from etils import epath

from bertjax.data.records import record_format, shard_memory
from bertjax.data.records.record_format import Schema, ShardInfo
from bertjax.errors import MismatchError, UserError, check, mismatch
from bertjax.given_files import check_is_no_pipe
from bertjax.progress import Progress, silent
from bertjax.storage import (
    blocks_of,
    cache_folder,
    cached,
    is_local,
    local_copy,
    read_errors,
    version_of,
)

log = logging.getLogger(__name__)

THREADS = 8
"""Shards that are compared at the same time. SHA-256 takes 2 GB/s on one core, disks more."""
LARGE_BYTES = 1 << 30
"""Bytes of shards from which on the log says that they are compared: it takes a while."""
READ_BYTES = 1 << 20
BLOCK_RECORDS = 8192
"""Records whose own checksums are compared at once."""


class _StoppedError(Exception):
    """The end of a thread whose result is not wanted any more."""


def map_records(path: epath.Path, schema: Schema, info: ShardInfo) -> np.ndarray:
    """Map a prepared shard as a read-only array uint8 `[records, record_bytes]`.

    On a local disk nothing is read yet; from a store the file is copied and compared. Raises
    `UserError` when the file is missing, or of another size than the manifest says.
    """
    check_exists(path, info)
    size = path.stat().length
    check(
        size == info.bytes == info.records * schema.record_bytes,
        where=str(path),
        found=f"{size} bytes",
        expected=f"{info.bytes} bytes",
    )
    shape = (info.records, schema.record_bytes)
    if not info.records:  # an empty file cannot be mapped
        return np.zeros(shape, np.uint8)
    if not info.sha256:
        _check_inside(path)
    local = path if is_local(path) else _copied(path, info)
    with read_errors(str(path), "", bytes):
        return np.memmap(local, np.uint8, "r", shape=shape)


def check_exists(path: epath.Path, info: ShardInfo) -> None:
    """Raise `UserError` when a shard that the manifest names is missing."""
    check(
        path.exists(),
        where=str(path),
        found="no file",
        expected=f"the shard of {info.records} records that the manifest names",
    )
    check(not path.is_dir(), where=str(path), found="a folder", expected="a shard")
    check_is_no_pipe(path)


def check_shards(
    paths: Sequence[epath.Path],
    infos: Sequence[ShardInfo],
    schema: Schema,
    *,
    skip_damaged: bool = False,
    progress: Progress = silent,
) -> None:
    """Compare shards on a local disk with the manifest, unless it is remembered that they agree.

    Those in a store are compared while they are copied. Raises `UserError` naming the first shard
    that differs. With `skip_damaged`, records that are damaged explain a difference; then a warning
    says that the other records of the shard could not be compared.
    """
    left = []
    for path, info in zip(paths, infos, strict=True):
        # Without a digest nothing can be compared, which the reader says.
        comparable = is_local(path) and info.sha256
        if comparable and not shard_memory.is_remembered(path, info.sha256):
            left.append((path, info))
    if not left:
        return
    total = sum(info.bytes for _, info in left)
    if total > LARGE_BYTES:
        log.info("comparing %d shards (%.1f GB) with the manifest, once", len(left), total / 1e9)

    stop = threading.Event()

    def fault_of(number: int) -> UserError | None:
        path, info = left[number]
        # Asked again: another process may have compared it since.
        if shard_memory.is_remembered(path, info.sha256):
            return None
        try:
            compare(path, info, schema, skip_damaged=skip_damaged, stop=stop)
        except UserError as error:
            return error
        except _StoppedError:
            pass  # nobody asks for the fault any more
        return None

    # In another order in each process. So processes that share a disk divide the work by what they
    # remember, without waiting for each other.
    order = random.SystemRandom().sample(range(len(left)), len(left))
    faults: dict[int, UserError] = {}
    with ThreadPoolExecutor(min(THREADS, len(left))) as pool:
        found = pool.map(fault_of, order)
        try:
            for done, (number, fault) in enumerate(zip(order, found, strict=True), 1):
                if fault is not None:
                    faults[number] = fault
                progress("check shards", done, len(left))
        # Ctrl-C must not wait until all is read.
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    # The first in the manifest, so that each process and each start names the same one.
    if faults:
        raise faults[min(faults)]


def compare(
    path: epath.Path,
    info: ShardInfo,
    schema: Schema,
    *,
    skip_damaged: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Read a shard on a local disk, and compare it; remember it if it agrees with the manifest.

    It ends early, with an error, when `stop` is set. The rest is as in `check_shards`.
    """
    if _agrees(path, info.sha256, stop):
        return
    damaged = _damaged_records(map_records(path, schema, info))
    if damaged and skip_damaged:
        log.warning(
            "%s: %d of %d records are damaged and will be skipped; whether the others are those "
            "that were written cannot be told",
            path,
            len(damaged),
            info.records,
        )
        return
    detail = "each record is whole: of another preparation, or at another place"
    if damaged:
        detail = f"record {damaged[0]} is damaged"
    raise other_bytes(path, f" ({detail})")


def verify(path: epath.Path, info: ShardInfo, schema: Schema) -> None:
    """Read a shard, locally or in a store, and compare it, whatever is remembered.

    Where the manifest has no digest, the checksum of each record is compared. Raises `UserError`.
    """
    check_exists(path, info)
    if not info.sha256:
        damaged = _damaged_records(map_records(path, schema, info))
        if damaged:
            raise other_bytes(path, f" (record {damaged[0]} is damaged)")
    elif is_local(path):
        compare(path, info, schema)
    else:
        with read_errors(str(path), "", bytes), path.open("rb") as file:
            digest = digest_of(file)
        if digest != info.sha256:
            raise other_bytes(path)


def other_bytes(path: epath.Path, detail: str = "") -> MismatchError:
    """Return the error, to be raised, for a shard that is not the one of the manifest."""
    return mismatch(
        where=str(path),
        found=f"other bytes than were written{detail}",
        expected="the manifest's checksum",
    )


def digest_of(file: IO[bytes], stop: threading.Event | None = None) -> str:
    """Return the SHA-256 of an open file, hexadecimal."""
    digest = hashlib.sha256()
    # Read into the same memory again: twice as fast as `blocks_of`, whose blocks are new each time.
    buffer = memoryview(bytearray(READ_BYTES))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        if stop is not None and stop.is_set():
            raise _StoppedError
    return digest.hexdigest()


def _check_inside(path: epath.Path) -> None:
    """Raise `UserError` for a link to a file outside the shard's folder.

    Where the manifest has a digest, a link may lead anywhere: only the same bytes are accepted.
    """
    real = os.path.realpath(path)
    check(
        not is_local(path) or os.path.dirname(real) == os.path.realpath(path.parent),
        where=str(path),
        found=f"a link to {real}",
        expected="a file in this folder, as the manifest has no checksum of it",
    )


def _agrees(path: epath.Path, sha256: str, stop: threading.Event | None = None) -> bool:
    """Return whether a file on a local disk has this digest; if so, it is remembered."""
    with read_errors(str(path), "", bytes), path.open("rb") as file:
        facts = shard_memory.facts_of(file)
        agrees = digest_of(file, stop) == sha256
        unchanged = facts == shard_memory.facts_of(file)
    if agrees and unchanged and facts is not None:
        shard_memory.remember(path, sha256, facts)
    return agrees


def _damaged_records(records: np.ndarray) -> list[int]:
    """Return the numbers of the records whose own checksum is wrong."""
    numbers: list[int] = []
    for begin in range(0, len(records), BLOCK_RECORDS):
        block = np.asarray(records[begin : begin + BLOCK_RECORDS])
        numbers += (begin + np.flatnonzero(record_format.damaged(block))).tolist()
    return numbers


def _copied(path: epath.Path, info: ShardInfo) -> epath.Path:
    """Return the path of a copy of a shard in a store, compared with the manifest."""
    if not info.sha256:
        name = f"{path} {version_of(path)}"
        return local_copy(path, hashlib.sha256(name.encode()).hexdigest())
    copy = cache_folder() / info.sha256
    # An earlier start made it. It may have changed since.
    is_known = not copy.exists() or shard_memory.is_remembered(copy, info.sha256)
    if not is_known and not _agrees(copy, info.sha256):
        log.warning("%s: the copy of %s is damaged and is made again", copy, path)
        copy.unlink(missing_ok=True)
    return cached(info.sha256, _compared_blocks(path, info.sha256))


def _compared_blocks(path: epath.Path, sha256: str) -> Iterator[bytes]:
    """Yield a file's bytes; raise `UserError` after the last if they do not have this digest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in blocks_of(file):
            digest.update(block)
            yield block
    if digest.hexdigest() != sha256:
        raise other_bytes(path)
