"""Reading records by their number, from our shards or from other scripts' TFRecord files."""

from collections.abc import Sequence

import google_crc32c
import numpy as np
from etils import epath

from bertjax.data import shards
from bertjax.data.manifest import Manifest
from bertjax.data.shards import FOOTER_BYTES, HEADER_BYTES, Batch, Schema
from bertjax.errors import UserError, check

HELDOUT_NAMES = ("valid", "eval", "dev", "test")


class OurShards:
    """The shards of one split of a prepared folder. Records are numbered across them in the manifest's order."""

    def __init__(self, folder: epath.Path, manifest: Manifest, split: str):
        """Map the files; `UserError` when one is missing or of another size than the manifest says."""
        self._schema = manifest.schema
        self._infos = manifest.split(split)
        self._paths = [folder / info.name for info in self._infos]
        opened = zip(self._paths, self._infos, strict=True)
        self._files = [shards.map_records(path, self._schema, info) for path, info in opened]
        self._starts = np.cumsum([0] + [info.records for info in self._infos])
        self.max_id = max((info.max_id for info in self._infos), default=0)
        """The largest id in any record."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: np.ndarray) -> Batch:
        """The records of these numbers, in this order; `UserError` naming the file of a damaged one."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        raw = np.empty((len(rows), self._schema.record_bytes), np.uint8)
        for shard in np.unique(which):
            here = which == shard
            raw[here] = self._files[shard][rows[here] - self._starts[shard]]
        bad = np.flatnonzero(shards.damaged(raw))
        if len(bad):
            shard = which[bad[0]]
            record = rows[bad[0]] - self._starts[shard]
            raise UserError(f"{self._paths[shard]}: record {record} is damaged: its checksum does not match its bytes")
        return shards.decode(self._schema, raw)


class ForeignRecords:
    """TFRecord files with the original BERT features, written by anyone."""

    def __init__(self, paths: Sequence[epath.Path], schema: Schema):
        """Find where each record lies and look at every id once.

        Raises `UserError` for a file that is truncated or no TFRecord file, or whose records
        have other lengths than `schema`.
        """
        self._paths, self._schema = list(paths), schema
        self._files = [
            np.memmap(path, np.uint8, "r") if path.stat().length else np.zeros(0, np.uint8) for path in paths
        ]
        spans = [record_spans(path, file) for path, file in zip(paths, self._files, strict=True)]
        self._spans = np.concatenate([np.zeros((0, 2), np.int64), *spans])
        self._starts = np.cumsum([0] + [len(span) for span in spans])
        self.max_id = 0
        for begin in range(0, len(self), 4096):
            batch = self.read(np.arange(begin, min(begin + 4096, len(self))))
            self.max_id = max(self.max_id, int(batch["input_ids"].max()), int(batch["masked_lm_ids"].max()))

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, rows: np.ndarray) -> Batch:
        """The records of these numbers, in this order, as `OurShards.read` gives them."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        examples = []
        for shard, row in zip(which, rows, strict=True):
            begin, end = self._spans[row]
            data = self._files[shard][begin:end].tobytes()
            stored = int.from_bytes(self._files[shard][end : end + FOOTER_BYTES].tobytes(), "little")
            if shards.masked_crc(np.array([google_crc32c.value(data)], np.uint32))[0] != stored:
                record = row - self._starts[shard]
                raise UserError(
                    f"{self._paths[shard]}: record {record} is damaged: its checksum does not match its bytes"
                )
            examples.append(data)
        return self._parse(examples, which)

    def _parse(self, examples: list[bytes], which: np.ndarray) -> Batch:
        import tensorflow as tf

        kinds = dict.fromkeys(shards.INT_WIDTHS, tf.int64) | dict.fromkeys(shards.FLOATS, tf.float32)
        lengths = {name: self._schema.length(name) for name in kinds}
        try:
            parsed = tf.io.parse_example(
                tf.constant(examples, tf.string),
                {name: tf.io.FixedLenFeature([lengths[name]], kind) for name, kind in kinds.items()},
            )
        except tf.errors.InvalidArgumentError:
            self._explain(examples, which, lengths)
            raise
        return {
            name: value.numpy().astype(np.int32 if name in shards.INT_WIDTHS else np.float32)
            for name, value in parsed.items()
        }

    def _explain(self, examples: list[bytes], which: np.ndarray, lengths: dict[str, int]) -> None:
        """Say which record of which file does not fit, and how."""
        import tensorflow as tf

        for shard, example in zip(which, examples, strict=True):
            found = tf.train.Example.FromString(example).features.feature
            for name, length in lengths.items():
                kind = found[name].WhichOneof("kind") if name in found else None
                values = len(getattr(found[name], kind).value) if kind else 0
                where = f"{self._paths[shard]}: {name}"
                check(values == length, where, f"{values} values", f"{length}, as data.max_seq_length and "
                      "data.max_predictions_per_seq say")  # fmt: skip


def foreign_paths(folder: epath.Path, split: str) -> list[epath.Path]:
    """The TFRecord files of a folder that belong to `split`: held out are those whose name says so."""
    paths = sorted(path for path in folder.iterdir() if ".tfrecord" in path.name or ".tf_record" in path.name)
    heldout = [path for path in paths if any(word in path.name for word in HELDOUT_NAMES)]
    return heldout if split == "validation" else [path for path in paths if path not in heldout]


def record_spans(path: epath.Path, file: np.ndarray) -> np.ndarray:
    """(begin, end) of each record's data in a TFRecord file's bytes, int64 `[n, 2]`.

    Raises `UserError` where the framing breaks off or its checksum is wrong.
    """
    spans: list[tuple[int, int]] = []
    at, size = 0, len(file)
    while at < size:
        header = file[at : at + HEADER_BYTES].tobytes()
        length, stored = int.from_bytes(header[:8], "little"), int.from_bytes(header[8:], "little")
        crc = shards.masked_crc(np.array([google_crc32c.value(header[:8])], np.uint32))[0]
        where = f"{path}: record {len(spans)}"
        check(
            len(header) == HEADER_BYTES and crc == stored, where, f"a broken header at byte {at}", "a TFRecord header"
        )
        begin, end = at + HEADER_BYTES, at + HEADER_BYTES + length
        check(end + FOOTER_BYTES <= size, where, f"the file's end at byte {size}", f"{length} bytes of data")
        spans.append((begin, end))
        at = end + FOOTER_BYTES
    return np.array(spans, np.int64).reshape(-1, 2)
