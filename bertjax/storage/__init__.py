"""Files, on a local disk or in a store (gs://, s3://): written whole, locked, decompressed."""

from bertjax.storage.compressed import (
    OPENERS,
    TAR_ENDINGS,
    compression_of,
    is_compressed,
    opened,
    read_errors,
)
from bertjax.storage.files import (
    CHUNK_BYTES,
    UNFINISHED,
    Json,
    blocks_of,
    cache_folder,
    cached,
    exact_version_of,
    local_copy,
    read_json,
    read_json_if_there,
    read_span,
    remove_unfinished,
    version_of,
    write_lines,
    write_whole,
    written_whole,
)
from bertjax.storage.folder_lock import (
    FolderLock,
    LockError,
    folder_lock,
    is_lock,
    release_held,
)
from bertjax.storage.guards import check_locks, guards_of
from bertjax.storage.paths import is_local, is_plain_name
from bertjax.storage.workers_lock import working_under

__all__ = [
    "CHUNK_BYTES",
    "OPENERS",
    "TAR_ENDINGS",
    "UNFINISHED",
    "FolderLock",
    "Json",
    "LockError",
    "blocks_of",
    "cache_folder",
    "cached",
    "check_locks",
    "compression_of",
    "exact_version_of",
    "folder_lock",
    "guards_of",
    "is_compressed",
    "is_local",
    "is_lock",
    "is_plain_name",
    "local_copy",
    "opened",
    "read_errors",
    "read_json",
    "read_json_if_there",
    "read_span",
    "release_held",
    "remove_unfinished",
    "version_of",
    "working_under",
    "write_lines",
    "write_whole",
    "written_whole",
]
