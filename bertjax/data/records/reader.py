"""Reader of the records of a prepared folder by their number."""

import hashlib
import json
import logging
import threading

import numpy as np
from etils import epath

from bertjax.data.records import record_format, shard_files
from bertjax.data.records.manifest import Manifest
from bertjax.errors import UserError
from bertjax.progress import Progress, silent
from bertjax.types import Batch

log = logging.getLogger(__name__)


class PreparedRecords:
    """The records of one split of a prepared folder.

    They are numbered across its shards, in the manifest's order.
    """

    def __init__(
        self, folder: epath.Path, manifest: Manifest, split: str, *, skip_damaged: bool = False
    ):
        """Map the files; raise `UserError` if one is missing or not of the size in the manifest.

        With `skip_damaged`, a record with a wrong checksum is read as zeros, and `skipped` gets its
        number. Otherwise, reading such a record raises `UserError`.
        """
        self.schema = manifest.schemas[split]
        self._skip_damaged = skip_damaged
        infos = manifest.split(split)
        self._infos = infos
        self._paths = [folder / info.name for info in infos]
        self._files = [
            shard_files.map_records(path, self.schema, info)
            for path, info in zip(self._paths, infos, strict=True)
        ]
        # tf.data reads in several threads.
        self._lock = threading.Lock()
        self._checked = False
        if not all(info.sha256 for info in infos):
            log.warning(
                "%s: the manifest has no checksums of the %s shards, so they are not compared",
                folder,
                split,
            )
        self._starts = np.cumsum([0] + [info.records for info in infos])
        self.max_id = max((info.max_id for info in infos), default=0)
        """The largest id in any record."""
        self.max_segment = 1 if self.schema.sentences else 0
        """The largest segment in any record: a pair has the segments 0 and 1."""
        self.skipped: set[int] = set()
        """Numbers of the damaged records that were read as zeros so far."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def check_shards(self, progress: Progress = silent) -> None:
        """Raise `UserError` unless the shards have the checksums of the manifest.

        `read` does this too, before the first record; called before, it holds up no batch.
        """
        with self._lock:
            if not self._checked:
                skip = self._skip_damaged
                shard_files.check_shards(
                    self._paths, self._infos, self.schema, skip_damaged=skip, progress=progress
                )
            self._checked = True

    def digest(self) -> str:
        """SHA-256 of what tells these records from others, hexadecimal.

        That is their features, and of each shard, in order, its digest in the manifest and the
        checksums in the file of its first and its last record. Nobody has to read all bytes for
        it: `check_shards` finds out whether the files are the manifest's. Names and places of files
        do not count.
        """
        digest = hashlib.sha256(json.dumps(self.schema.lengths).encode())
        for info, file in zip(self._infos, self._files, strict=True):
            digest.update(f"{info.records} {info.sha256}".encode())
            if info.records:
                digest.update(file[[0, -1], -record_format.FOOTER_BYTES :].tobytes())
        return digest.hexdigest()

    def read(self, record_numbers: np.ndarray) -> Batch:
        """Read the records of these numbers, int `[n]`, in this order.

        Raises `UserError` naming the file of a damaged record, and, before the first is read, a
        shard that is not the one of the manifest.
        """
        if not self._checked:
            self.check_shards()
        # An empty shard has the same start as the next one; side="right" skips it.
        shards = np.searchsorted(self._starts, record_numbers, side="right") - 1
        raw = np.empty((len(record_numbers), self.schema.record_bytes), np.uint8)
        for shard in np.unique(shards):
            here = shards == shard
            raw[here] = self._files[shard][record_numbers[here] - self._starts[shard]]
        damaged_rows = np.flatnonzero(record_format.damaged(raw))
        for row in damaged_rows:
            self._note_damage(int(record_numbers[row]), int(shards[row]))
        batch = record_format.decode(self.schema, raw)
        # A row of zeros is only padding with weights of 0, so it adds nothing to the loss.
        for values in batch.values():
            values[damaged_rows] = 0
        return batch

    def _note_damage(self, record_number: int, shard: int) -> None:
        """Raise `UserError` for a damaged record; with `skip_damaged` count it once and log it."""
        number_in_shard = record_number - self._starts[shard]
        fault = f"{self._paths[shard]}: record {number_in_shard} is damaged"
        if not self._skip_damaged:
            raise UserError(f"{fault}: its checksum does not match its bytes")
        if record_number not in self.skipped:
            self.skipped.add(record_number)
            log.warning("%s and skipped; %d so far", fault, len(self.skipped))
