"""Where a document goes: its split and shard, by its content alone."""

from dataclasses import dataclass

import numpy as np

from bertjax.config import Config

RANGE_BYTES, SHARD_BYTES, FEWEST_SHARDS = 24 << 20, 64 << 20, 8


@dataclass(frozen=True)
class Shard:
    """A shard to be written, from the documents of `ranges` ranges beginning with number `first`."""

    split: str
    number: int
    of: int
    first: int
    ranges: int

    @property
    def file(self) -> str:
        """The shard's file name."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.tfrecord"


@dataclass(frozen=True)
class Plan:
    """How the digests of documents are cut into ranges, each of them a unit of memory, and those
    into shards.
    """

    validation_fraction: float
    train_shards: int
    validation_shards: int
    ranges_per_shard: int

    @property
    def ranges(self) -> int:
        """All ranges: those of the training shards, then those of the held-out ones."""
        return (self.train_shards + self.validation_shards) * self.ranges_per_shard

    def shards(self) -> list[Shard]:
        """All shards, training ones first."""
        sizes = (
            ("train", self.train_shards, 0),
            ("validation", self.validation_shards, self.train_shards),
        )
        each = self.ranges_per_shard
        return [
            Shard(split, n, size, (n + before) * each, each)
            for split, size, before in sizes
            for n in range(size)
        ]

    def place(self, digests: np.ndarray) -> np.ndarray:
        """The range of each document, from its digest, uint8 `[D, 16]`; int64 `[D]`."""
        words = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)
        train, heldout = (
            n * self.ranges_per_shard for n in (self.train_shards, self.validation_shards)
        )
        high = words[:, 1] >> np.uint64(32)
        return np.where(
            self.held_out(digests),
            train + (high * np.uint64(heldout) >> np.uint64(32)).astype(np.int64),
            (high * np.uint64(train) >> np.uint64(32)).astype(np.int64),
        )

    def held_out(self, digests: np.ndarray) -> np.ndarray:
        """Whether each document is held out; bool `[D]`."""
        words = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)
        return words[:, 0] < np.uint64(min(int(self.validation_fraction * 2.0**64), 2**64 - 1))


def plan_places(config: Config, text_bytes: int) -> Plan:
    """The plan for a corpus of about so many bytes: a range holds about `RANGE_BYTES` of text."""
    share = config.data.validation_fraction
    shards = config.data.num_shards or max(FEWEST_SHARDS, -(-text_bytes // SHARD_BYTES))
    heldout = max(1, round(shards * share)) if share else 0
    return Plan(share, shards, heldout, max(1, -(-text_bytes // (RANGE_BYTES * shards))))
