"""Reading records by their number, from our shards or from other scripts' TFRecord files."""

import logging
from collections.abc import Sequence

import google_crc32c
import numpy as np
from etils import epath

from bertjax.data.records import record_format as shards
from bertjax.data.records.manifest import Manifest
from bertjax.data.records.record_format import FOOTER_BYTES, HEADER_BYTES, Schema
from bertjax.errors import UserError, check, mismatch, needs_extra
from bertjax.types import Batch

log = logging.getLogger(__name__)

HELDOUT_NAMES = ("valid", "eval", "dev", "test")


class OurShards:
    """The shards of one split of a prepared folder. Records are numbered across them in the
    manifest's order.
    """

    def __init__(
        self, folder: epath.Path, manifest: Manifest, split: str, *, skip_damaged: bool = False
    ):
        """Map the files; `UserError` when one is missing or of another size than the manifest says.

        With `skip_damaged` a record whose checksum is wrong is read as zeros, and counted in
        `skipped`; without it reading it is a `UserError`.
        """
        self.schema = manifest.schemas[split]
        self._infos, self._skip = manifest.split(split), skip_damaged
        self._paths = [folder / info.name for info in self._infos]
        opened = zip(self._paths, self._infos, strict=True)
        self._files = [shards.map_records(path, self.schema, info) for path, info in opened]
        self._starts = np.cumsum([0] + [info.records for info in self._infos])
        self.max_id = max((info.max_id for info in self._infos), default=0)
        """The largest id in any record."""
        self.skipped: set[int] = set()
        """The damaged records read as zeros so far."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: np.ndarray) -> Batch:
        """The records of these numbers, in this order; `UserError` naming the file of a damaged
        one.
        """
        which = np.searchsorted(self._starts, rows, side="right") - 1
        raw = np.empty((len(rows), self.schema.record_bytes), np.uint8)
        for shard in np.unique(which):
            here = which == shard
            raw[here] = self._files[shard][rows[here] - self._starts[shard]]
        bad = np.flatnonzero(shards.damaged(raw))
        for row in bad:
            said = f"{self._paths[which[row]]}: record {rows[row] - self._starts[which[row]]} is damaged"
            if not self._skip:
                raise UserError(f"{said}: its checksum does not match its bytes")
            if rows[row] not in self.skipped:
                self.skipped.add(int(rows[row]))
                log.warning("%s and skipped; %d so far", said, len(self.skipped))
        batch = shards.decode(self.schema, raw)
        for values in batch.values():
            values[bad] = 0
        return batch


class ForeignRecords:
    """TFRecord files with the original BERT features, written by anyone."""

    def __init__(self, paths: Sequence[epath.Path], schema: Schema):
        """Find where each record lies and look at every id once.

        Raises `UserError` for a file that is truncated or no TFRecord file, or whose records are
        damaged, have other lengths than `schema`, or values outside a feature's range.
        """
        self._paths, self.schema = list(paths), schema
        self._files = [
            np.memmap(path, np.uint8, "r") if path.stat().length else np.zeros(0, np.uint8)
            for path in paths
        ]
        spans = [record_spans(path, file) for path, file in zip(paths, self._files, strict=True)]
        self._spans = np.concatenate([np.zeros((0, 2), np.int64), *spans])
        self._starts = np.cumsum([0] + [len(span) for span in spans])
        self.max_id = 0
        for begin in range(0, len(self), 4096):
            batch = self.read(np.arange(begin, min(begin + 4096, len(self))))
            self.max_id = max(
                self.max_id, int(batch["input_ids"].max()), int(batch["masked_lm_ids"].max())
            )

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, rows: np.ndarray) -> Batch:
        """The records of these numbers, in this order, as `OurShards.read` gives them."""
        examples = []
        for row in rows:
            file, (begin, end) = self._files[self._shard(row)], self._spans[row]
            data = file[begin:end].tobytes()
            stored = int.from_bytes(file[end : end + FOOTER_BYTES].tobytes(), "little")
            if shards.masked_crc(np.array([google_crc32c.value(data)], np.uint32))[0] != stored:
                raise UserError(
                    f"{self._place(row)} is damaged: its checksum does not match its bytes"
                )
            examples.append(data)
        parsed = self._parse(examples, rows)
        self._check_ranges(parsed, rows)
        return {name: values.astype(shards.kind_of(name)) for name, values in parsed.items()}

    def _shard(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _place(self, row: int) -> str:
        shard = self._shard(row)
        return f"{self._paths[shard]}: record {row - self._starts[shard]}"

    def _parse(self, examples: list[bytes], rows: np.ndarray) -> Batch:
        with needs_extra("data"):
            import tensorflow as tf

        wanted = {
            name: tf.io.FixedLenFeature([length], tf.float32 if name in shards.FLOATS else tf.int64)
            for name, length in self.schema.lengths.items()
        }
        try:
            parsed = tf.io.parse_example(tf.constant(examples, tf.string), wanted)
        except (
            tf.errors.InvalidArgumentError,
            UnicodeDecodeError,
        ):  # the latter where its text quotes raw bytes
            self._explain(examples, rows)
            raise
        return {name: value.numpy() for name, value in parsed.items()}

    def _check_ranges(self, batch: Batch, rows: np.ndarray) -> None:
        """A value outside would wrap in int32, or be gathered from elsewhere, in silence; ids: see
        `max_id`.
        """
        limits = {
            "input_mask": 2,
            "masked_lm_positions": self.schema.max_seq_length,
            "next_sentence_labels": 2,
        }
        for name in self.schema.lengths.keys() - set(shards.FLOATS):
            values, limit = batch[name], limits.get(name, 2**31)
            outside = np.argwhere((values < 0) | (values >= limit))
            for row, column in outside[:1]:
                where = f"{self._place(rows[row])}: {name}"
                raise mismatch(where=where, found=values[row, column], expected=f"0 to {limit - 1}")

    def _explain(self, examples: list[bytes], rows: np.ndarray) -> None:
        """Say which record of which file does not fit, and how."""
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        for row, example in zip(rows, examples, strict=True):
            try:
                found = tf.train.Example.FromString(example).features.feature
            except DecodeError:
                raise UserError(
                    f"{self._place(row)}: found other bytes, expected a tf.train.Example"
                ) from None
            for name, length in self.schema.lengths.items():
                kind = found[name].WhichOneof("kind") if name in found else None
                values = len(getattr(found[name], kind).value) if kind else 0
                where = f"{self._place(row)}: {name}"
                check(values == length, where=where, found=f"{values} values", expected=f"{length}, as data.max_seq_length and "
                      "data.max_predictions_per_seq say")  # fmt: skip
                expected = "float_list" if name in shards.FLOATS else "int64_list"
                check(kind == expected, where=where, found=f"a {kind}", expected=f"a {expected}")


def foreign_paths(folder: epath.Path, split: str) -> list[epath.Path]:
    """The TFRecord files of a folder that belong to `split`: held out are those whose name says so."""
    paths = sorted(
        path for path in folder.iterdir() if ".tfrecord" in path.name or ".tf_record" in path.name
    )
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
            len(header) == HEADER_BYTES and crc == stored,
            where=where,
            found=f"a broken header at byte {at}",
            expected="a TFRecord header",
        )
        begin, end = at + HEADER_BYTES, at + HEADER_BYTES + length
        check(
            end + FOOTER_BYTES <= size,
            where=where,
            found=f"the file's end at byte {size}",
            expected=f"{length} bytes of data",
        )
        spans.append((begin, end))
        at = end + FOOTER_BYTES
    return np.array(spans, np.int64).reshape(-1, 2)
