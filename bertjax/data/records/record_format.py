"""Records of pretraining sequences: their features, their bytes, and the files that hold them.

A shard is an ordinary TFRecord file of `tf.train.Example`s with the feature names of the original
BERT data script, so bertjax and that script can read each other's files. In addition, all records
of a schema have the same length here: integers are written as varints of a fixed width (a varint
may be padded with groups of zero bits). So whole columns of a batch are encoded and decoded at
once, and record `i` begins at byte `i * record_bytes`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import google_crc32c
import numpy as np
from etils import epath

from bertjax.config import DataConfig
from bertjax.storage import written_whole
from bertjax.types import Batch

# Number of bytes in each varint of a feature. A byte holds 7 bits, so ids are up to 2^21 - 1 and
# positions up to 2^14 - 1.
INT_WIDTHS = {
    "input_ids": 3,
    "input_mask": 1,
    "segment_ids": 1,
    "masked_lm_positions": 2,
    "masked_lm_ids": 3,
    "next_sentence_labels": 1,
    "word_starts": 1,
    "pack_ids": 1,
    "position_ids": 2,
    "cls_positions": 2,
}
MAX_IDS = 1 << (7 * INT_WIDTHS["input_ids"])
MAX_POSITIONS = 1 << (7 * INT_WIDTHS["masked_lm_positions"])
FLOATS = ("masked_lm_weights", "cls_weights")
"""Features that are IEEE floats of 4 bytes; all others are integers."""
FLOAT_WIDTH = 4
# TFRecord's framing of a record: uint64 length, uint32 CRC of it, the data, uint32 CRC of the data.
# See https://www.tensorflow.org/tutorials/load_data/tfrecord.
HEADER_BYTES, FOOTER_BYTES = 12, 4

# Field numbers of tf.train.Example, Features, Feature and the lists, and protobuf's wire format.
# See tensorflow/core/example/feature.proto and https://protobuf.dev/programming-guides/encoding/.
_FLOAT_LIST, _INT64_LIST = 2, 3
_LENGTH_DELIMITED = 2
# A varint has 7 bits a byte; the high bit says that more bytes follow.
_MORE, _PAYLOAD = 0x80, 0x7F


@dataclass(frozen=True)
class Schema:
    """The features of a record, and their lengths."""

    max_seq_length: int
    """Ids in a row, L."""
    max_predictions_per_seq: int
    """Predictions in a row, P; 0 if the rows are not masked."""
    sentences: int = 1
    """Sentence labels in a row, S; 0 if there is no sentence objective."""
    packed: bool = False
    """True if several inputs may share a row; each id then has its input's number and its position
    in it (`pack_ids`, `position_ids`).
    """
    word_starts: bool = False
    """True if the record stores where words begin; if False, this follows from the vocabulary."""

    @property
    def lengths(self) -> dict[str, int]:
        """The number of values of each feature, in the order of their bytes.

        The order must not change, because shards of earlier versions are read in this order.
        """
        ids, predictions, sentences = (
            self.max_seq_length,
            self.max_predictions_per_seq,
            self.sentences,
        )
        lengths = {"input_ids": ids, "input_mask": ids, "segment_ids": ids}
        if predictions:
            lengths["masked_lm_positions"] = predictions
            lengths["masked_lm_ids"] = predictions
        if sentences:
            lengths["next_sentence_labels"] = sentences
        if self.word_starts:
            lengths["word_starts"] = ids
        if self.packed:
            lengths["pack_ids"] = ids
            lengths["position_ids"] = ids
            if sentences:
                lengths["cls_positions"] = sentences
        if predictions:
            lengths["masked_lm_weights"] = predictions
        if self.packed and sentences:
            lengths["cls_weights"] = sentences
        return lengths

    @property
    def record_bytes(self) -> int:
        """The size of a record in a file, in bytes, framing included."""
        return len(_template(self)[0])


@dataclass(frozen=True)
class ShardInfo:
    """The manifest's entry of one shard."""

    name: str
    split: str
    records: int
    """The number of records in the file."""
    bytes: int
    sha256: str
    max_id: int
    """The largest id in any record; 0 if there are no records."""


def feature_dtype(feature: str) -> type[np.generic]:
    """Return the type of a feature's values in a batch: float32 or int32."""
    return np.float32 if feature in FLOATS else np.int32


def schema_of(config: DataConfig, split: str) -> Schema:
    """Return the schema of the shards that `prepare` makes for `split`: `train` or `validation`."""
    masked_later = config.dynamic_masking and split == "train"
    has_sentences = config.sentence_objective != "none"
    return Schema(
        config.max_seq_length,
        0 if masked_later else config.max_predictions_per_seq,
        sentences=config.max_sequences_per_row if has_sentences else 0,
        packed=config.max_sequences_per_row > 1,
        word_starts=config.word_segmenter != "none",
    )


def encode(schema: Schema, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a batch `{feature: [n, length]}` as records, uint8 `[n, record_bytes]`.

    The records are framed. Raises `ValueError` when a value does not fit its width.
    """
    template, columns = _template(schema)
    count = len(batch["input_ids"])
    records = np.tile(template, (count, 1))
    for name, length in schema.lengths.items():
        begin = columns[name]
        if name in FLOATS:
            floats = np.ascontiguousarray(batch[name], "<f4").reshape(count, length)
            records[:, begin : begin + FLOAT_WIDTH * length] = floats.view(np.uint8)
            continue
        width = INT_WIDTHS[name]
        values = np.asarray(batch[name], np.int32).reshape(count, length)
        limit = 1 << (7 * width)
        # A larger value would lose its high bits without a sign, and a negative varint has ten
        # bytes.
        if values.size and (values.min() < 0 or values.max() >= limit):
            raise ValueError(
                f"{name}: found {values.min()} to {values.max()}, expected 0 to {limit - 1}"
            )
        end = begin + width * length
        for i in range(width):
            more = _MORE if i < width - 1 else 0
            records[:, begin + i : end : width] = (values >> (7 * i)) & _PAYLOAD | more
    records[:, -FOOTER_BYTES:] = data_crcs(records)[:, None].view(np.uint8)
    return records


def decode(schema: Schema, records: np.ndarray) -> Batch:
    """Return the batch of records, the inverse of `encode`: int32 and float32 `[n, length]`."""
    _, columns = _template(schema)
    batch: Batch = {}
    for name, length in schema.lengths.items():
        begin = columns[name]
        if name in FLOATS:
            raw = np.ascontiguousarray(records[:, begin : begin + FLOAT_WIDTH * length])
            batch[name] = raw.view("<f4").astype(np.float32, copy=False)
            continue
        width = INT_WIDTHS[name]
        end = begin + width * length
        values = (records[:, begin:end:width] & _PAYLOAD).astype(np.int32)
        for i in range(1, width):
            group = (records[:, begin + i : end : width] & _PAYLOAD).astype(np.int32)
            values |= group << (7 * i)
        batch[name] = values
    return batch


def damaged(records: np.ndarray) -> np.ndarray:
    """Return which records, uint8 `[n, record_bytes]`, have a wrong checksum; bool `[n]`."""
    stored = np.ascontiguousarray(records[:, -FOOTER_BYTES:]).view("<u4")[:, 0]
    return stored != data_crcs(records)


def data_crcs(records: np.ndarray) -> np.ndarray:
    """Return TFRecord's masked CRC-32C of each framed record's data, uint32 `[n]`."""
    crc = google_crc32c.value
    crcs = [
        crc(record[HEADER_BYTES:-FOOTER_BYTES])
        for record in map(bytes, np.ascontiguousarray(records))
    ]
    return masked_crc(np.array(crcs, np.uint32))


def tfrecord_crc(data: bytes) -> np.uint32:
    """Return TFRecord's masked CRC-32C of one piece of data."""
    return masked_crc(np.array([google_crc32c.value(data)], np.uint32))[0]


def masked_crc(crc: np.ndarray) -> np.ndarray:
    """Return CRCs, uint32, as TFRecord stores them: rotated by 15 bits, plus a constant.

    CRCs are masked because the CRC of data that contains CRCs is weak (LevelDB, `crc32c.h`).
    """
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def write_shard(
    path: epath.Path, split: str, schema: Schema, batches: Iterable[Mapping[str, np.ndarray]]
) -> ShardInfo:
    """Write batches as one file, which gets its final name only when it is complete.

    If it cannot be written, raises `UserError` naming the file, and no part of it is left.
    """
    digest, size, records, max_id = hashlib.sha256(), 0, 0, 0
    with written_whole(path) as file:
        for batch in batches:
            block = encode(schema, batch).data
            file.write(block)
            digest.update(block)
            size += block.nbytes
            records += len(batch["input_ids"])
            # In masked rows, the original of a masked id is only in `masked_lm_ids`.
            for name in ("input_ids", "masked_lm_ids"):
                if name in batch:
                    max_id = max(max_id, int(batch[name].max(initial=0)))
    return ShardInfo(path.name, split, records, size, digest.hexdigest(), max_id)


@lru_cache
def _template(schema: Schema) -> tuple[np.ndarray, dict[str, int]]:
    """Return a record's bytes with all values 0, and the column of each feature's first value."""
    entries, columns, size = [], {}, 0
    for name, length in schema.lengths.items():
        if name in FLOATS:
            kind, width = _FLOAT_LIST, FLOAT_WIDTH
            zero = bytes(width)
        else:
            kind, width = _INT64_LIST, INT_WIDTHS[name]
            # Groups of zero bits with more to follow: so a small value has as many bytes as a large
            # one.
            zero = bytes([_MORE] * (width - 1) + [0])
        # An entry of the map Features.feature: field 1 is its key, field 2 its value, a Feature.
        # Packed, as feature.proto says: one field has all values.
        feature = _field(kind, _field(1, zero * length))
        entry = _field(1, _field(1, name.encode()) + _field(2, feature))
        entries.append(entry)
        size += len(entry)
        # The values are always the last bytes of their entry.
        columns[name] = size - width * length
    data = _field(1, b"".join(entries))
    start = HEADER_BYTES + len(data) - size
    header = len(data).to_bytes(8, "little")
    record = header + tfrecord_crc(header).tobytes() + data + bytes(FOOTER_BYTES)
    columns = {name: start + column for name, column in columns.items()}
    return np.frombuffer(record, np.uint8), columns


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited protobuf field: its tag, its length as a varint, its payload."""
    varint, rest = bytearray(), len(payload)
    while rest > _PAYLOAD:
        varint.append(rest & _PAYLOAD | _MORE)
        rest >>= 7
    return bytes([number << 3 | _LENGTH_DELIMITED, *varint, rest]) + payload
