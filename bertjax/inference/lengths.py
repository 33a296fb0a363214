"""Lengths of the rows that inference computes: the longest allowed, and those padded to."""

from contextlib import AbstractContextManager

import jax

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.parallel import memory

SHORTEST = 8
"""The shortest length that rows are padded to."""


def longest_row(config: ModelConfig, max_seq_length: int | None) -> int:
    """Return the most ids of a row, special tokens included: `max_seq_length` if it is given.

    By default 512, or as many as the model has positions. Raises `UserError` where the model has
    fewer than `max_seq_length`.
    """
    # 512 is the length of BERT's own rows (arXiv 1810.04805, appendix A.2).
    length = min(512, config.max_length) if max_seq_length is None else max_seq_length
    check(
        # Two: [CLS] and [SEP].
        2 <= length <= config.max_length,
        where="max_seq_length",
        found=length,
        expected=f"2 to {config.max_length}, the model's positions",
    )
    return length


def padded_length(length: int, longest: int) -> int:
    """Return the length that rows of `length` ids are padded to, at most `longest`.

    It is the smallest of 8, 16, 24, ..., 64, 96, 128, 192, 256, 384, 512, ... that is long enough.
    A program is compiled for each length that occurs. Fine-tuning uses `finetune.length_buckets`
    instead, because a run has a configuration; inference has none, and rows may be as long as the
    model allows. The steps of 8 are for sentences: with only powers of two up to 64, the sentences
    of STS took 15 % longer.
    """
    if length <= 64:
        return min(longest, -(-length // SHORTEST) * SHORTEST)
    power = 1 << (length - 1).bit_length()
    between = power * 3 // 4
    return min(longest, between if length <= between else power)


def check_rows_fit(config: ModelConfig, rows: int) -> None:
    """Raise `UserError` for a batch of so many rows that the local devices cannot hold it.

    This is a lower bound: of the shortest rows the ids, and the output of one layer.
    """
    memory.check_fits(
        rows * min(SHORTEST, config.max_length) * (config.hidden_size * 2 + 4),
        memory.memory_bytes(jax.local_devices()),
        where="batch_size",
        found=f"{rows:,} rows",
        expected="fewer",
    )


def row_memory_errors(rows: int) -> AbstractContextManager[None]:
    """Turn the end of memory in the block, which computes such batches, into a `UserError`."""
    return memory.memory_errors("batch_size", f"{rows:,} rows", "fewer")
