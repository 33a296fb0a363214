"""Assignment of documents to splits and shards, by their content alone.

They depend only on the document's digest and on the bound between the splits, not on the order of
the files. The bound follows from `data.validation_fraction` alone, not from the rest of the corpus,
unless the corpus has very few documents (`splits/bound.py`). So a document stays in its split when
the corpus grows.
"""

from dataclasses import dataclass, replace

import numpy as np

from bertjax.config import Config

# Text in a range, the documents that a worker makes into rows at a time.
# Other sizes give other shards, for documents are packed within a range.
RANGE_BYTES = 24 << 20
# Tokens that a random B may come from: about those of one or two ranges of the size above (4 to 5
# bytes of English are a token). So a corpus of up to 50 MB is one pool, and of a larger one a
# worker has hardly more in memory than the range itself; ids take 4 bytes. Documents are in their
# ranges by a hash, so those of any ranges are a random sample of the split.
POOL_TOKENS = 8_000_000
SHARD_BYTES = 64 << 20
MIN_SHARDS = 8


@dataclass(frozen=True)
class Shard:
    """A shard to write, with the documents of the ranges `first` to `first + ranges - 1`."""

    split: str
    number: int
    of: int
    """The number of shards of the split."""
    first: int
    ranges: int

    @property
    def file(self) -> str:
        """The shard's file name."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.tfrecord"


@dataclass(frozen=True)
class Plan:
    """Division of the documents' digests into ranges, and of the ranges into shards.

    A range is a unit of work: its documents are made into rows together. A pool is a unit of
    memory: some ranges of a split, whose documents are read together.
    """

    heldout_bound: int
    """Documents whose split word is below it are held out; 0 to 2^64 - 1."""
    train_shards: int
    validation_shards: int
    ranges_per_shard: int
    ranges_per_pool: int = 1
    """About how many ranges have `POOL_TOKENS` (see `pooled`)."""

    @property
    def ranges(self) -> int:
        """The number of ranges in all; the ranges of training shards have the lowest numbers."""
        return (self.train_shards + self.validation_shards) * self.ranges_per_shard

    def shards(self) -> list[Shard]:
        """List all shards, training ones first."""
        shards = []
        first = 0
        for split, count in (("train", self.train_shards), ("validation", self.validation_shards)):
            for number in range(count):
                shards.append(Shard(split, number, count, first, self.ranges_per_shard))
                first += self.ranges_per_shard
        return shards

    def ranges_in(self, split: str) -> range:
        """Return the numbers of the ranges in a split, `train` or `validation`."""
        train_ranges = self.train_shards * self.ranges_per_shard
        return range(train_ranges) if split == "train" else range(train_ranges, self.ranges)

    def split_of(self, number: int) -> range:
        """Return the numbers of all ranges in the split that has the range `number`."""
        train = self.ranges_in("train")
        return train if number in train else self.ranges_in("validation")

    def pool_of(self, number: int) -> range:
        """Return the numbers of the ranges in the pool of a range: neighbors of its split."""
        split = self.split_of(number)
        # From 2/3 to 1.5 times `ranges_per_pool` each, or the whole split.
        pools = max(1, round(len(split) / self.ranges_per_pool))
        pool = (number - split.start) * pools // len(split)
        # The first number of each pool, rounded up.
        begin, end = -(-pool * len(split) // pools), -(-(pool + 1) * len(split) // pools)
        return range(split.start + begin, split.start + end)

    def pooled(self, tokens: int) -> "Plan":
        """Return the plan with pools for a corpus of so many tokens."""
        # Counted and not estimated from the bytes of the files, as the ranges are: a table may have
        # columns that are far larger than the text.
        ranges = round(POOL_TOKENS * self.ranges / max(tokens, 1))
        return replace(self, ranges_per_pool=max(1, ranges))

    def ranges_of(self, digests: np.ndarray) -> np.ndarray:
        """Return the range of each document, int64 `[D]`, from its digest, uint8 `[D, 16]`."""
        train_ranges = self.train_shards * self.ranges_per_shard
        heldout_ranges = self.validation_shards * self.ranges_per_shard
        # range = (32 bits of the digest) * (number of ranges) / 2^32, which needs only a shift. The
        # bits differ from those in `held_out`, so that split and range are independent.
        high = _words(digests)[:, 1] >> np.uint64(32)
        train = (high * np.uint64(train_ranges) >> np.uint64(32)).astype(np.int64)
        heldout = (high * np.uint64(heldout_ranges) >> np.uint64(32)).astype(np.int64)
        return np.where(self.held_out(digests), train_ranges + heldout, train)

    def held_out(self, digests: np.ndarray) -> np.ndarray:
        """Return which documents are held out; bool `[D]`.

        If the fraction grows, all documents that were held out before are still held out.
        """
        return _words(digests)[:, 0] < np.uint64(self.heldout_bound)


def plan_shards(config: Config, text_bytes: int) -> Plan:
    """Plan the shards of a corpus of about `text_bytes`; a range is about `RANGE_BYTES` of it."""
    fraction = config.data.validation_fraction
    shards = config.data.num_shards or max(MIN_SHARDS, -(-text_bytes // SHARD_BYTES))
    heldout = max(1, round(shards * fraction)) if fraction else 0
    ranges_per_shard = max(1, -(-text_bytes // (RANGE_BYTES * shards)))
    return Plan(bound_of(fraction), shards, heldout, ranges_per_shard)


def bound_of(validation_fraction: float) -> int:
    """Return the bound below which this fraction of all split words lie."""
    # For a fraction of 1, 2^64 would not fit a uint64.
    return min(int(validation_fraction * 2.0**64), 2**64 - 1)


def split_word(digest: bytes) -> int:
    """Return the number in a document's digest that decides its split: 64 bits, 0 to 2^64 - 1."""
    # The same as the first of `_words`.
    return int.from_bytes(digest[:8], "little")


def _words(digests: np.ndarray) -> np.ndarray:
    """Return digests, uint8 `[D, 16]`, as two little-endian words each, uint64 `[D, 2]`."""
    # Little-endian on every machine, so that each document has the same split and range there.
    return np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)
