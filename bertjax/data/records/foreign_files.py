"""TFRecord files of other BERT data scripts: which ones a split has, and the records in them."""

import numpy as np
from etils import epath

from bertjax.data.records import record_format
from bertjax.data.records.record_format import FOOTER_BYTES, HEADER_BYTES
from bertjax.errors import check

HELDOUT_NAMES = ("valid", "eval", "dev", "test")
"""A foreign file whose name contains one of these has held-out records."""


def foreign_paths(folder: epath.Path, split: str) -> list[epath.Path]:
    """List the TFRecord files of a folder that belong to `split`, `train` or `validation`.

    Files whose name contains one of `HELDOUT_NAMES` are held out.
    """
    heldout, others = [], []
    # Sorted: a record's number must mean the same at each start and on each host.
    for path in sorted(folder.iterdir()):
        # The original's scripts write both endings; a shard's number may follow them.
        if ".tfrecord" not in path.name and ".tf_record" not in path.name:
            continue
        if any(part in path.name for part in HELDOUT_NAMES):
            heldout.append(path)
        else:
            others.append(path)
    return heldout if split == "validation" else others


def record_spans(path: epath.Path, file: np.ndarray) -> np.ndarray:
    """Return (begin, end) of each record's data in a TFRecord file's bytes, int64 `[n, 2]`.

    Raises `UserError` where the framing breaks off or its checksum is wrong.
    """
    # Records of other scripts differ in length; the header of each record has its length.
    spans: list[tuple[int, int]] = []
    position, size = 0, len(file)
    while position < size:
        header = file[position : position + HEADER_BYTES].tobytes()
        length = int.from_bytes(header[:8], "little")
        stored = int.from_bytes(header[8:], "little")
        where = f"{path}: record {len(spans)}"
        check(
            # The length has a checksum of its own: a wrong one would lead to another place in the
            # file.
            len(header) == HEADER_BYTES and record_format.tfrecord_crc(header[:8]) == stored,
            where=where,
            found=f"a broken header at byte {position}",
            expected="a TFRecord header",
        )
        begin = position + HEADER_BYTES
        end = begin + length
        check(
            end + FOOTER_BYTES <= size,
            where=where,
            found=f"the file's end at byte {size}",
            expected=f"{length} bytes of data",
        )
        spans.append((begin, end))
        position = end + FOOTER_BYTES
    return np.array(spans, np.int64).reshape(-1, 2)


def map_file(path: epath.Path) -> np.ndarray:
    """Map a file's bytes, uint8; an empty file cannot be mapped."""
    if path.stat().length == 0:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r")
