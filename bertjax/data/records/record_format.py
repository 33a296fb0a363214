"""The record: its features, its bytes, and files of it.

A shard is an ordinary TFRecord file of `tf.train.Example` under the feature names of the
original BERT data script, so either side's files serve the other. What is ours is that every
record of a schema has the same length: integers are written as varints of a fixed width (a
varint may carry leading zeros), so that a batch is encoded and decoded by whole columns, and
record `i` lies at `i * record_bytes`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import google_crc32c
import numpy as np
from etils import epath

from bertjax.config import DataConfig
from bertjax.errors import check
from bertjax.storage import local_copy, written_whole
from bertjax.types import Batch

# Widths in bytes of a feature's varints: 7 bits a byte. Weights are IEEE floats.
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
FLOATS = ("masked_lm_weights", "cls_weights")
HEADER_BYTES, FOOTER_BYTES = 12, 4  # TFRecord's framing: length and its CRC; the CRC of the data


@dataclass(frozen=True)
class Schema:
    """Which features a record has, and how long they are."""

    max_seq_length: int
    """Ids in a row, L."""
    max_predictions_per_seq: int
    """Predictions in a row, P; 0: the rows are not masked."""
    sentences: int = 1
    """Sentence labels in a row, S; 0: there is no sentence objective."""
    packed: bool = False
    """Whether several inputs may share a row: then each id has its input's number and its place in
    it.
    """
    word_starts: bool = False
    """Whether each id says if a word begins with it; else its piece of the vocabulary does."""

    @property
    def lengths(self) -> dict[str, int]:
        """The number of values of each feature, in the order of their bytes."""
        length, predictions, sentences = (
            self.max_seq_length,
            self.max_predictions_per_seq,
            self.sentences,
        )
        found = dict.fromkeys(("input_ids", "input_mask", "segment_ids"), length)
        if predictions:
            found |= dict.fromkeys(("masked_lm_positions", "masked_lm_ids"), predictions)
        if sentences:
            found["next_sentence_labels"] = sentences
        if self.word_starts:
            found["word_starts"] = length
        if self.packed:
            found |= {"pack_ids": length, "position_ids": length}
            found |= {"cls_positions": sentences} if sentences else {}
        if predictions:
            found["masked_lm_weights"] = predictions
        if self.packed and sentences:
            found["cls_weights"] = sentences
        return found

    @property
    def record_bytes(self) -> int:
        """The size of a record in a file, framing included."""
        return len(_template(self)[0])


@dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one file."""

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    max_id: int


def kind_of(feature: str) -> type[np.generic]:
    """The type of a feature's values in a batch."""
    return np.float32 if feature in FLOATS else np.int32


def schema_of(config: DataConfig, split: str) -> Schema:
    """The schema that `prepare` gives the shards of `train` or `validation`."""
    packed = config.max_sequences_per_row > 1
    return Schema(
        config.max_seq_length,
        0 if config.dynamic_masking and split == "train" else config.max_predictions_per_seq,
        sentences=config.max_sequences_per_row if config.sentence_objective != "none" else 0,
        packed=packed,
        word_starts=config.word_segmenter != "none",
    )


def encode(schema: Schema, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """A batch `{feature: [n, length]}` as records, uint8 `[n, record_bytes]`, framing included.

    Raises `ValueError` when a value does not fit its width.
    """
    template, columns = _template(schema)
    rows = len(batch["input_ids"])
    out = np.tile(template, (rows, 1))
    for name, length in schema.lengths.items():
        begin = columns[name]
        if name in FLOATS:
            weights = np.ascontiguousarray(batch[name], "<f4").reshape(rows, length)
            out[:, begin : begin + 4 * length] = weights.view(np.uint8)
            continue
        width = INT_WIDTHS[name]
        values = np.asarray(batch[name], np.int32).reshape(rows, length)
        if values.size and (values.min() < 0 or values.max() >= 1 << (7 * width)):
            raise ValueError(
                f"{name}: found {values.min()} to {values.max()}, expected 0 to {(1 << (7 * width)) - 1}"
            )
        for i in range(width):
            more = 0x80 if i < width - 1 else 0
            out[:, begin + i : begin + width * values.shape[1] : width] = (
                values >> (7 * i)
            ) & 0x7F | more
    out[:, -FOOTER_BYTES:] = data_crcs(out)[:, None].view(np.uint8)
    return out


def decode(schema: Schema, records: np.ndarray) -> Batch:
    """The inverse of `encode`: int32 and float32 arrays, `[n, length]` a feature."""
    _, columns = _template(schema)
    batch: Batch = {}
    for name, length in schema.lengths.items():
        begin = columns[name]
        if name in FLOATS:
            raw = np.ascontiguousarray(records[:, begin : begin + 4 * length])
            batch[name] = raw.view("<f4").astype(np.float32, copy=False)
            continue
        width = INT_WIDTHS[name]
        end = begin + width * length
        values = (records[:, begin:end:width] & 0x7F).astype(np.int32)
        for i in range(1, width):
            values |= (records[:, begin + i : end : width] & 0x7F).astype(np.int32) << (7 * i)
        batch[name] = values
    return batch


def damaged(records: np.ndarray) -> np.ndarray:
    """Which of the records, uint8 `[n, record_bytes]`, do not have the checksum that they carry;
    bool `[n]`.
    """
    stored = np.ascontiguousarray(records[:, -FOOTER_BYTES:]).view("<u4")[:, 0]
    return stored != data_crcs(records)


def data_crcs(records: np.ndarray) -> np.ndarray:
    """TFRecord's masked CRC-32C of each framed record's data, uint32 `[n]`."""
    crc = google_crc32c.value
    body = [
        crc(row[HEADER_BYTES:-FOOTER_BYTES]) for row in map(bytes, np.ascontiguousarray(records))
    ]
    return masked_crc(np.array(body, np.uint32))


def masked_crc(crc: np.ndarray) -> np.ndarray:
    """A CRC as TFRecord stores it: rotated by 15 bits, plus a constant."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def write_shard(
    path: epath.Path, split: str, schema: Schema, batches: Iterable[Mapping[str, np.ndarray]]
) -> ShardInfo:
    """Write batches as one file, which has its final name only when it is whole and on the disk.

    Raises `UserError` naming the file when the disk refuses; nothing of it is left then.
    """
    digest, size, records, max_id = hashlib.sha256(), 0, 0, 0
    with written_whole(path) as file:
        for batch in batches:
            block = encode(schema, batch).data
            file.write(block)
            digest.update(block)
            size, records = size + block.nbytes, records + len(batch["input_ids"])
            ids = (
                int(batch[name].max(initial=0))
                for name in ("input_ids", "masked_lm_ids")
                if name in batch
            )
            max_id = max(max_id, *ids)
    return ShardInfo(path.name, split, records, size, digest.hexdigest(), max_id)


def map_records(path: epath.Path, schema: Schema, info: ShardInfo) -> np.ndarray:
    """A shard of ours as a read-only array uint8 `[records, record_bytes]`, without reading it.

    Raises `UserError` when the file is missing, or of another size than the manifest says.
    """
    check(
        path.exists(),
        where=str(path),
        found="no file",
        expected=f"the shard of {info.records} records that the manifest names",
    )
    size = path.stat().length
    check(
        size == info.bytes == info.records * schema.record_bytes,
        where=str(path),
        found=f"{size} bytes",
        expected=f"{info.bytes} bytes",
    )
    if not info.records:
        return np.zeros((0, schema.record_bytes), np.uint8)
    return np.memmap(
        local_copy(path, info.sha256), np.uint8, "r", shape=(info.records, schema.record_bytes)
    )


@lru_cache
def _template(schema: Schema) -> tuple[np.ndarray, dict[str, int]]:
    """A record's bytes with all values 0, and where each feature's values begin."""
    entries, places, size = [], {}, 0
    for name, length in schema.lengths.items():
        width = 4 if name in FLOATS else INT_WIDTHS[name]
        zero = bytes(4) if name in FLOATS else bytes([0x80] * (width - 1) + [0])
        kind = 2 if name in FLOATS else 3  # Feature's float_list or int64_list
        values = _field(1, zero * length)
        entry = _field(1, _field(1, name.encode()) + _field(2, _field(kind, values)))
        places[name] = size + len(entry) - width * length
        entries.append(entry)
        size += len(entry)
    data = _field(1, b"".join(entries))
    start = HEADER_BYTES + len(data) - size
    header = len(data).to_bytes(8, "little")
    header_crc = masked_crc(np.array([google_crc32c.value(header)], np.uint32)).tobytes()
    record = header + header_crc + data + bytes(FOOTER_BYTES)
    return np.frombuffer(record, np.uint8), {name: start + place for name, place in places.items()}


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = bytearray(), len(payload)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + payload
