"""Files, on a local disk or in a store (gs://, s3://): written whole, locked, decompressed."""

import os

# Set before epath opens its first path. By default epath uses TensorFlow for gs:// and s3://, which
# takes seconds to import and cannot read s3://. Without TensorFlow it uses fsspec, whose cache of
# folder listings would hide files that other processes write, so that cache is off.
os.environ.setdefault("EPATH_USE_TF", "false")
for _store in ("S3", "GS"):
    os.environ.setdefault(f"FSSPEC_{_store}_USE_LISTINGS_CACHE", "false")

from bertjax.storage.compressed import (  # noqa: E402
    OPENERS,
    TAR_ENDINGS,
    compression_of,
    is_compressed,
    opened,
    read_errors,
)
from bertjax.storage.files import (  # noqa: E402
    CHUNK_BYTES,
    UNFINISHED,
    Json,
    blocks_of,
    cache_folder,
    cached,
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
from bertjax.storage.folder_lock import (  # noqa: E402
    FolderLock,
    LockError,
    folder_lock,
    is_lock,
    release_held,
    working_under,
)
from bertjax.storage.guards import check_locks, guards_of  # noqa: E402
from bertjax.storage.paths import is_local, is_plain_name  # noqa: E402

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
