"""Reader of the records of other BERT data scripts by their number."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from bertjax.data.records import record_format
from bertjax.data.records.foreign_files import map_file, record_spans
from bertjax.data.records.record_format import FOOTER_BYTES, Schema
from bertjax.errors import UserError, check, mismatch, needs_extra
from bertjax.types import Batch

SCAN_RECORDS = 4096
"""Number of foreign records that are parsed together when all records are checked."""


class ForeignRecords:
    """Records with the features of the original BERT, in TFRecord files of any script."""

    def __init__(self, paths: Sequence[epath.Path], schema: Schema):
        """Find the bytes of each record, and look at every id once.

        Raises `UserError` for a file that is truncated or no TFRecord file, or whose records are
        damaged, have other lengths than `schema`, or values outside a feature's range.
        """
        self._paths, self.schema = list(paths), schema
        self._files = [map_file(path) for path in paths]
        spans = [record_spans(path, file) for path, file in zip(paths, self._files, strict=True)]
        self._spans = np.concatenate([np.zeros((0, 2), np.int64), *spans])
        self._starts = np.cumsum([0] + [len(span) for span in spans])
        # All records are read now, because no manifest has the largest id, and so that errors are
        # found before the first step.
        self.max_id = 0
        for begin in range(0, len(self), SCAN_RECORDS):
            batch = self.read(np.arange(begin, min(begin + SCAN_RECORDS, len(self))))
            for name in ("input_ids", "masked_lm_ids"):
                self.max_id = max(self.max_id, int(batch[name].max()))

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, record_numbers: np.ndarray) -> Batch:
        """Read the records of these numbers, in this order, as `PreparedRecords.read` does."""
        examples = []
        for number in record_numbers:
            file, (begin, end) = self._files[self._shard(number)], self._spans[number]
            data = file[begin:end].tobytes()
            # Checked at each read, since the file may be damaged after the run began.
            stored = int.from_bytes(file[end : end + FOOTER_BYTES].tobytes(), "little")
            if record_format.tfrecord_crc(data) != stored:
                raise UserError(
                    f"{self._where(number)} is damaged: its checksum does not match its bytes"
                )
            examples.append(data)
        parsed = self._parse(examples, record_numbers)
        self._check_ranges(parsed, record_numbers)
        return {
            name: values.astype(record_format.feature_dtype(name))
            for name, values in parsed.items()
        }

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
            features[name] = tf.io.FixedLenFeature([length], dtype)
        try:
            parsed = tf.io.parse_example(tf.constant(examples, tf.string), features)
        # TensorFlow's message may quote raw bytes that are not UTF-8.
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
            # The message does not name the record either, so the records are checked one by one.
            self._check_examples(examples, record_numbers)
            raise
        return {name: value.numpy() for name, value in parsed.items()}

    def _check_ranges(self, batch: Batch, record_numbers: np.ndarray) -> None:
        """Raise `UserError` for a value outside its feature's range.

        Such a value would silently wrap around in int32, or a gather would use another position.
        The upper bound of ids is the vocabulary size, which is checked with `max_id`.
        """
        # Of the other integers the limit is int32's, the type in a batch.
        limits = {
            "input_mask": 2,
            "masked_lm_positions": self.schema.max_seq_length,
            "next_sentence_labels": 2,
        }
        for name in self.schema.lengths:
            if name in record_format.FLOATS:
                continue
            values, limit = batch[name], limits.get(name, 2**31)
            outside = np.argwhere((values < 0) | (values >= limit))
            if len(outside):
                row, column = outside[0]
                where = f"{self._where(record_numbers[row])}: {name}"
                raise mismatch(where=where, found=values[row, column], expected=f"0 to {limit - 1}")

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
            kind, count = None, 0
            if name in features:
                kind = features[name].WhichOneof("kind")
            if kind:
                count = len(getattr(features[name], kind).value)
            check(
                count == length,
                where=f"{where}: {name}",
                found=f"{count} values",
                expected=f"{length}, as data.max_seq_length and data.max_predictions_per_seq say",
            )
            expected = "float_list" if name in record_format.FLOATS else "int64_list"
            check(
                kind == expected,
                where=f"{where}: {name}",
                found=f"a {kind}",
                expected=f"a {expected}",
            )
