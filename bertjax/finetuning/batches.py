"""Batches of encoded examples: the items that each step trains on, and their padded arrays."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertjax.data.order import permute
from bertjax.data.ragged import ranges
from bertjax.errors import check
from bertjax.tasks.task import EncodedExamples

SEPARATOR = "/"  # between a task's name and the name of one of its own arrays in a batch

# Batches whose items are sorted by length together, at most. With it 74 % of the ids computed are
# real on SST-2 at 32 a batch, against 18 % where all rows are padded to 128.
MAX_WINDOW = 64
# Windows in an epoch, at least. With one, the items of a small task would be sorted as a whole, and
# its batches would hold the same items in every epoch.
MIN_WINDOWS = 4

# What a random key is for: its last word, or the last but one. Above 0, because keys that differ
# only by zeros at their end are the same key.
_ITEMS, _BATCHES, _TASKS = 1, 2, 3

Numpy = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a run's batches."""

    batch_size: int
    """Items of a batch, over all processes."""
    length_buckets: Sequence[int]
    """Lengths that rows are padded to, ascending."""
    max_seq_length: int
    """The length where no bucket is long enough; no row is longer."""
    pad_id: int


def task_of(batch: Mapping[str, Any]) -> str:
    """Return the name of the task of a batch, which the names of its arrays begin with."""
    (name,) = {key.partition(SEPARATOR)[0] for key in batch if SEPARATOR in key}
    return name


def plain_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without the task's name before the names of its arrays, as a `Task` has it."""
    return {key.partition(SEPARATOR)[2] or key: values for key, values in batch.items()}


def steps_per_epoch(encoded: EncodedExamples, batch_size: int) -> int:
    """Return the number of batches that hold each item once; the last of them may be short."""
    return -(-encoded.items // batch_size)


def train_batches(
    encoded_by_task: Mapping[str, EncodedExamples],
    shape: BatchShape,
    *,
    steps: int,
    seed: int,
    task_exponent: float,
    start: int,
    row_indices: np.ndarray,
) -> Iterator[Numpy]:
    """Return this process's rows of each batch from step `start` (0-based) to the last of `steps`.

    A batch is `shape.batch_size` items of one task, the last ones of a short batch being padding;
    `row_indices` int64 [b] are those that this process computes. A batch holds `input_ids`,
    `input_mask`, `segment_ids` int32 [b, L] (with choices [b, C, L]) and, as `TASK/NAME`,
    `item_weights` float32 [b] (1; 0 for padding), `targets` [b, ...] (0 for padding) and
    `token_targets` int32 [b, L] or [b, C, L] (-1 for padding). L is the least of
    `shape.length_buckets` that the longest item of the whole batch fits, or `max_seq_length`, so
    that all processes have the same.

    Of several tasks each is drawn in proportion to its number of items to the power of
    `task_exponent`, step by step, and goes through epochs of its own (`epoch_items`). All is a
    function of (seed, step) and of the items' lengths. It does not depend on the mesh, the number
    of processes, the first step, or the order of the tasks.

    Raises `UserError` where a task has no rows, `ValueError` where a row is longer than
    `shape.max_seq_length`; both before the first batch is asked for.
    """
    names = sorted(encoded_by_task)
    lengths = []
    for name in names:
        check(
            encoded_by_task[name].items > 0,
            where=f"task {name}",
            found="no training rows",
            expected="one or more",
        )
        lengths.append(item_lengths(encoded_by_task[name], shape.max_seq_length))
    task_by_step = draw_tasks([len(own) for own in lengths], task_exponent, steps, seed)
    steps_before = np.bincount(task_by_step[:start], minlength=len(names)).tolist()
    streams = [
        epoch_items(own, shape.batch_size, step, seed, name)
        for name, own, step in zip(names, lengths, steps_before, strict=True)
    ]

    def batches() -> Iterator[Numpy]:
        for task in task_by_step[start:]:
            items, name = next(streams[task]), names[task]
            length = padded_length(lengths[task], items, shape)
            yield make_batch(
                encoded_by_task[name],
                items[row_indices],
                length,
                pad_id=shape.pad_id,
                task=name,
            )

    # A generator of its own: in a generator function the checks above would wait for the first
    # batch.
    return batches()


def eval_batches(
    encoded: EncodedExamples, shape: BatchShape, *, row_indices: np.ndarray, task: str = ""
) -> Iterator[tuple[np.ndarray, Numpy]]:
    """Yield batches of each item once, the longest first, with the items of the whole batch.

    Items are int64 [batch_size], -1 for those that fill up the last batch. The batch has this
    process's rows, as in `train_batches`; without a `task` its names are plain, as a `Task` has
    them. Of no items there are no batches.
    """
    lengths = item_lengths(encoded, shape.max_seq_length)
    order = np.argsort(-lengths, kind="stable")
    for begin in range(0, len(order), shape.batch_size):
        items = fill_up(order[begin : begin + shape.batch_size], shape.batch_size)
        length = padded_length(lengths, items, shape)
        batch = make_batch(encoded, items[row_indices], length, pad_id=shape.pad_id, task=task)
        yield items, batch


def epoch_items(
    lengths: np.ndarray, batch_size: int, step: int, seed: int, task: str
) -> Iterator[np.ndarray]:
    """Yield the items of a task's batches from its own `step` (0-based) on, int64 [batch_size].

    There is no end to them. `lengths` has each item's length. An epoch is a permutation of the
    items, keyed by (seed, task, epoch). It is cut into windows of at most `MAX_WINDOW` batches; the
    items of a window are sorted by length and cut into batches, and these are shuffled. So a batch
    holds items of similar lengths. The rest of the permutation is the epoch's last batch, filled up
    with -1: a random sample, so that no length weighs more for being in a short batch.
    """
    items = len(lengths)
    full, rest = divmod(items, batch_size)
    bounds = _window_bounds(full)
    first_epoch, step_of_epoch = divmod(step, -(-items // batch_size))
    for epoch in itertools.count(first_epoch):
        key = (seed, _word_of(task), epoch)
        for begin, end in itertools.pairwise(bounds):
            if end > step_of_epoch:
                window = _window_items(lengths, batch_size, begin, end, key)
                yield from window[max(0, step_of_epoch - begin) :]
        if rest:
            last = permute(np.arange(full * batch_size, items), items, (*key, _ITEMS))
            yield fill_up(last, batch_size)
        step_of_epoch = 0


def _window_bounds(batches: int) -> list[int]:
    """Return the bounds of an epoch's windows, which differ by one batch at most in their size."""
    if batches == 0:
        return []
    windows = max(-(-batches // MAX_WINDOW), min(batches, MIN_WINDOWS))
    return [window * batches // windows for window in range(windows + 1)]


def _window_items(
    lengths: np.ndarray, batch_size: int, begin: int, end: int, key: tuple[int, ...]
) -> np.ndarray:
    """Return the items of an epoch's batches `begin` to `end`, int64 [end - begin, batch_size]."""
    items = permute(np.arange(begin * batch_size, end * batch_size), len(lengths), (*key, _ITEMS))
    batches = items[np.argsort(lengths[items], kind="stable")].reshape(-1, batch_size)
    return batches[permute(np.arange(end - begin), end - begin, (*key, _BATCHES, begin))]


def draw_tasks(sizes: Sequence[int], exponent: float, steps: int, seed: int) -> np.ndarray:
    """Draw the task of each step, int64 [steps] in 0..tasks-1, in proportion to size ** exponent.

    The draws of a step do not depend on the number of steps.
    """
    if len(sizes) == 1:
        return np.zeros(steps, np.int64)
    bounds = np.cumsum(np.array(sizes, np.float64) ** exponent)
    # Raw words of a counter-based generator: numpy promises that these stay as they are, and does
    # not promise it of `Generator.random`.
    words = np.random.Philox(np.random.SeedSequence((seed, _TASKS))).random_raw(steps)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # 53 bits: all that a float64 holds
    return np.searchsorted(bounds / bounds[-1], uniform, side="right")


def _word_of(name: str) -> int:
    """Return 32 bits of a name; Python's own hash differs from process to process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def item_lengths(encoded: EncodedExamples, max_seq_length: int) -> np.ndarray:
    """Return the ids of each item, of its longest row where it has several; int64 [items]."""
    by_row = np.diff(encoded.offsets)
    lengths = by_row.reshape(encoded.items, encoded.choices).max(axis=1)
    longest = lengths.max(initial=0)
    if longest > max_seq_length:
        raise ValueError(f"a row of {longest} ids, max_seq_length is {max_seq_length}")
    return lengths


def fill_up(items: np.ndarray, batch_size: int) -> np.ndarray:
    """Return `items` and as many -1 as they are short of `batch_size`."""
    return np.pad(items, (0, batch_size - len(items)), constant_values=-1)


def padded_length(lengths: np.ndarray, items: np.ndarray, shape: BatchShape) -> int:
    """Return the length of a batch's rows: the least bucket that the longest of `items` fits.

    It is `max_seq_length` where no bucket is long enough; items of -1 are padding. Inference has no
    configured buckets: see `bertjax.inference.lengths.padded_length`.
    """
    longest = lengths[items[items >= 0]].max(initial=0)
    for bucket in shape.length_buckets:
        if longest <= bucket <= shape.max_seq_length:
            return bucket
    return shape.max_seq_length


def make_batch(
    encoded: EncodedExamples, items: np.ndarray, length: int, *, pad_id: int, task: str = ""
) -> Numpy:
    """Return the arrays of `items` (int64 [b], -1: padding), padded to `length`.

    They are named as in `eval_batches`.
    """
    real, choices = items >= 0, encoded.choices
    rows = (items[real, None] * choices + np.arange(choices)[None, :]).reshape(-1)
    is_row = np.repeat(real, choices)
    begins, ends = encoded.offsets[rows], encoded.offsets[rows + 1]
    lengths, second = np.zeros(len(is_row), np.int64), np.zeros(len(is_row), np.int64)
    lengths[is_row], second[is_row] = ends - begins, encoded.second_begins[rows]
    positions = np.arange(length)[None, :]
    mask = positions < lengths[:, None]
    source = ranges(begins, ends)
    shape = (len(items), length) if choices == 1 else (len(items), choices, length)

    def padded(flat: np.ndarray, padding: int) -> np.ndarray:
        array = np.full(mask.shape, padding, np.int32)
        array[mask] = flat[source]
        return array.reshape(shape)

    def by_item(values: np.ndarray) -> np.ndarray:
        array = np.zeros((len(items), *values.shape[1:]), values.dtype)
        array[real] = values[items[real]]
        return array

    prefix = f"{task}{SEPARATOR}" if task else ""
    batch = {
        "input_ids": padded(encoded.ids, pad_id),
        "input_mask": mask.astype(np.int32).reshape(shape),
        "segment_ids": (mask & (positions >= second[:, None])).astype(np.int32).reshape(shape),
        f"{prefix}item_weights": real.astype(np.float32),
    }
    for name, values in encoded.targets.items():
        batch[prefix + name] = by_item(values)
    for name, flat in encoded.token_targets.items():
        batch[prefix + name] = padded(flat, -1)
    return batch
