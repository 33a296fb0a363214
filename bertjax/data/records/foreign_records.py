"""Reader of the records of other BERT data scripts by their number."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from etils import epath

from bertjax.data.records import record_format
from bertjax.data.records.foreign_files import (
    describe_split,
    first_record,
    foreign_paths,
    map_file,
    record_spans,
)
from bertjax.data.records.manifest import SPLITS
from bertjax.data.records.record_format import FOOTER_BYTES, Schema
from bertjax.errors import UserError, check, mismatch, needs_extra
from bertjax.types import Batch

MODEL_GARDEN_NAMES = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}
"""The names of features in `create_pretraining_data.py` of the TensorFlow Model Garden, by ours.

It writes them with `--use_v2_feature_names`.
"""
MASKED = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
"""Features of masked rows alone."""
SCAN_RECORDS = 4096
"""Number of foreign records that are parsed together when all records are checked."""


class ForeignRecords:
    """Records with the features of the original BERT, in TFRecord files of any script.

    Features may have the names of the TensorFlow Model Garden (`MODEL_GARDEN_NAMES`).
    """

    def __init__(
        self,
        paths: Sequence[epath.Path],
        schema: Schema,
        *,
        any_predictions: bool = False,
        lengths_from: str = "",
    ):
        """Find the bytes of each record, and look at every id once.

        The schema's number of predictions becomes 0 if the first record is not masked; with
        `any_predictions` it becomes the first record's. `lengths_from` says in messages where the
        schema's lengths are from; empty: from the configuration. Raises `UserError` for a file that
        is truncated or no TFRecord file, or whose records are damaged, have other lengths than the
        schema, or values outside a feature's range.
        """
        self._paths = list(paths)
        self._files = [map_file(path) for path in paths]
        spans = [record_spans(path, file) for path, file in zip(paths, self._files, strict=True)]
        self._spans = np.concatenate([np.zeros((0, 2), np.int64), *spans])
        self._starts = np.cumsum([0] + [len(span) for span in spans])
        self._stored_names: dict[str, str] = {}
        self._lengths_from = "as data.max_seq_length and data.max_predictions_per_seq say"
        if any_predictions:
            self._lengths_from = "as data.max_seq_length says, or as in the first record"
        self._lengths_from = lengths_from or self._lengths_from
        self.schema = schema
        if len(self):
            self._take_first_record(any_predictions)
        # All records are read now, because no manifest has the largest id, and so that errors are
        # found before the first step.
        self.max_id = self.max_segment = 0
        for begin in range(0, len(self), SCAN_RECORDS):
            batch = self.read(np.arange(begin, min(begin + SCAN_RECORDS, len(self))))
            for name in ("input_ids", "masked_lm_ids"):
                if name in batch:
                    self.max_id = max(self.max_id, int(batch[name].max()))
            self.max_segment = max(self.max_segment, int(batch["segment_ids"].max()))

    def __len__(self) -> int:
        return len(self._spans)

    def digest(self) -> str:
        """SHA-256 of the lengths and checksums of all records, in order; names do not count."""
        digest = hashlib.sha256(json.dumps(self.schema.lengths).encode())
        footer = np.arange(FOOTER_BYTES)
        for shard, file in enumerate(self._files):
            spans = self._spans[self._starts[shard] : self._starts[shard + 1]]
            for begin in range(0, len(spans), SCAN_RECORDS):
                begins, ends = spans[begin : begin + SCAN_RECORDS].T
                digest.update((ends - begins).tobytes())
                digest.update(file[ends[:, None] + footer].tobytes())
        return digest.hexdigest()

    def describe(self, folder: epath.Path, split: str) -> str:
        """Return a line with the number of rows and the names of the files, which are in `folder`.

        `split` is the split that they belong to.
        """
        return describe_split(folder, split, self._paths, len(self))

    def _take_first_record(self, any_predictions: bool) -> None:
        """Set the schema's number of predictions, and the names of features, by record 0."""
        with needs_extra("data"):
            import tensorflow as tf
            from google.protobuf.message import DecodeError

        try:
            features = tf.train.Example.FromString(self._data(0)).features.feature
        except DecodeError:
            return  # reading it names the fault
        for name, other in MODEL_GARDEN_NAMES.items():
            if other in features and name not in features:
                self._stored_names[name] = other
        predictions = self.schema.max_predictions_per_seq
        if not any(name in features for name in MASKED):
            predictions = 0
        elif any_predictions and "masked_lm_positions" in features:
            predictions = len(features["masked_lm_positions"].int64_list.value)
        self.schema = replace(self.schema, max_predictions_per_seq=predictions)

    def _stored(self, name: str) -> str:
        """The name in the files of a feature."""
        return self._stored_names.get(name, name)

    def read(self, record_numbers: np.ndarray) -> Batch:
        """Read the records of these numbers, in this order, as `PreparedRecords.read` does."""
        examples = [self._data(number) for number in record_numbers]
        parsed = self._parse(examples, record_numbers)
        self._check_ranges(parsed, record_numbers)
        return {
            name: values.astype(record_format.feature_dtype(name))
            for name, values in parsed.items()
        }

    def _data(self, record_number: int) -> bytes:
        """The bytes of a record; `UserError` if they are damaged."""
        file, (begin, end) = self._files[self._shard(record_number)], self._spans[record_number]
        data = file[begin:end].tobytes()
        # Checked at each read, since the file may be damaged after the run began.
        stored = int.from_bytes(file[end : end + FOOTER_BYTES].tobytes(), "little")
        if record_format.tfrecord_crc(data) != stored:
            raise UserError(
                f"{self._where(record_number)} is damaged: its checksum does not match its bytes"
            )
        return data

    def _shard(self, record_number: int) -> int:
        return int(np.searchsorted(self._starts, record_number, side="right")) - 1

    def _where(self, record_number: int) -> str:
        """Name a record for a message: its file, and its number in that file."""
        shard = self._shard(record_number)
        return f"{self._paths[shard]}: record {record_number - self._starts[shard]}"

    def _parse(self, examples: list[bytes], record_numbers: np.ndarray) -> Batch:
        """Parse serialized `tf.train.Example`s; int64 and float32 arrays, `[n, length]` each."""
        with needs_extra("data"):
            import tensorflow as tf

        features = {}
        for name, length in self.schema.lengths.items():
            dtype = tf.float32 if name in record_format.FLOATS else tf.int64
            # Of a fixed length: TensorFlow itself then refuses a record of another one.
            features[self._stored(name)] = tf.io.FixedLenFeature([length], dtype)
        if not self.schema.max_predictions_per_seq:
            features["masked_lm_ids"] = tf.io.VarLenFeature(tf.int64)
        try:
            parsed = tf.io.parse_example(tf.constant(examples, tf.string), features)
        # TensorFlow's message may quote raw bytes that are not UTF-8.
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
            # The message does not name the record either, so the records are checked one by one.
            self._check_examples(examples, record_numbers)
            raise
        if not self.schema.max_predictions_per_seq:
            masked = parsed["masked_lm_ids"].indices.numpy()[:, 0]
            # Its masks would be taken for text.
            check(
                not len(masked),
                where=self._where(record_numbers[masked[0]]) if len(masked) else "",
                found="a masked row",
                expected=f"one that is not masked, as in {self._where(0)}",
            )
        return {name: parsed[self._stored(name)].numpy() for name in self.schema.lengths}

    def _check_ranges(self, batch: Batch, record_numbers: np.ndarray) -> None:
        """Raise `UserError` for a value outside its feature's range.

        Such a value would silently wrap around in int32, or a gather would use another position.
        The upper bounds of ids and segments are the model's, and are checked with `max_id` and
        `max_segment`.
        """
        # Of the other integers the limit is int32's, the type in a batch.
        limits = {
            "input_mask": 2,
            "masked_lm_positions": self.schema.max_seq_length,
            "next_sentence_labels": 2,
        }
        for name in self.schema.lengths:
            values, limit = batch[name], limits.get(name, 2**31)
            inside, expected = (values >= 0) & (values < limit), f"0 to {limit - 1}"
            if name in record_format.FLOATS:
                # A weight below 0 would turn the loss round; NaN is neither.
                inside, expected = (values >= 0) & (values < np.inf), "a finite weight, not below 0"
            outside = np.argwhere(~inside)
            if len(outside):
                row, column = outside[0]
                where = f"{self._where(record_numbers[row])}: {name}"
                raise mismatch(where=where, found=values[row, column], expected=expected)

    def _check_examples(self, examples: list[bytes], record_numbers: np.ndarray) -> None:
        """Raise the `UserError` that names the first record that does not fit, and its fault."""
        for number, example in zip(record_numbers, examples, strict=True):
            self._check_example(example, self._where(number))

    def _check_example(self, example: bytes, where: str) -> None:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        try:
            features = tf.train.Example.FromString(example).features.feature
        except DecodeError:
            raise UserError(f"{where}: found other bytes, expected a tf.train.Example") from None
        for name, length in self.schema.lengths.items():
            # `features[name]` would add a feature to the map.
            stored = self._stored(name)
            kind, count = None, 0
            if stored in features:
                kind = features[stored].WhichOneof("kind")
            if kind:
                count = len(getattr(features[stored], kind).value)
            check(
                count == length,
                where=f"{where}: {stored}",
                found=f"{count} values",
                expected=f"{length}, {self._lengths_from}",
            )
            expected = "float_list" if name in record_format.FLOATS else "int64_list"
            check(
                kind == expected,
                where=f"{where}: {stored}",
                found=f"a {kind}",
                expected=f"a {expected}",
            )


def describe_files(folder: epath.Path) -> list[str]:
    """Return one line for each split that has files: its rows, its files, and what is in them.

    All records are read. Raises `UserError` for what training would refuse with any configuration:
    damaged records, ones of other lengths than the first of all, values outside a feature's range.
    """
    lines: list[str] = []
    ids = 0
    for split in SPLITS:
        paths = foreign_paths(folder, split)
        if not paths:
            continue
        of_split, labels = _first_lengths(paths)
        ids = ids or of_split
        records = ForeignRecords(
            paths,
            # One prediction stands for any number: the first record says how many.
            Schema(ids, 1, sentences=labels),
            any_predictions=True,
            lengths_from="as in the first record",
        )
        line = records.describe(folder, split)
        if len(records):
            line += (
                f"; {ids:,} ids and {records.schema.max_predictions_per_seq:,} predictions a row, "
                f"ids to {records.max_id:,}, segments to {records.max_segment}"
            )
        lines.append(line)
    return lines


def _first_lengths(paths: Sequence[epath.Path]) -> tuple[int, int]:
    """The numbers of ids and of sentence labels in the first record of some files; 0 for none."""
    with needs_extra("data"):
        import tensorflow as tf
        from google.protobuf.message import DecodeError

    first = first_record(paths)
    if first is None:
        return 0, 0
    path, data = first
    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError:
        return 1, 0  # reading it names the fault
    counts = {name: len(each.int64_list.value) for name, each in features.items()}
    ids = counts.get("input_ids") or counts.get(MODEL_GARDEN_NAMES["input_ids"], 0)
    check(
        ids > 0,
        where=f"{path}: record 0: input_ids",
        found="0 values",
        expected="the ids of a row",
    )
    return ids, counts.get("next_sentence_labels", 0)
