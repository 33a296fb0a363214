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

# Maximum number of batches whose items are sorted by length together. With 64 (SST-2, batch size
# 32), 74 % of the computed ids are not padding; if all rows are padded to 128, only 18 % are not.
MAX_WINDOW = 64
# Minimum number of windows in an epoch. If there were one, all items of a small task would be
# sorted together, and its batches would have the same items in every epoch.
MIN_WINDOWS = 4

# Purpose of a random key; it is the last or the second to last word of the key. The numbers are
# above 0, because keys that differ only by zeros at the end are the same key.
_ITEMS, _BATCHES, _TASKS = 1, 2, 3

Numpy = dict[str, np.ndarray]


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a run's batches."""

    batch_size: int
    """Number of items in a batch, over all processes."""
    length_buckets: Sequence[int]
    """Lengths that rows are padded to, ascending."""
    max_seq_length: int
    """Maximum length of a row, and the padded length if no bucket is long enough."""
    pad_id: int


def task_of(batch: Mapping[str, Any]) -> str:
    """Return the name of a batch's task, with which the names of its arrays begin."""
    (name,) = {key.partition(SEPARATOR)[0] for key in batch if SEPARATOR in key}
    return name


def plain_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch in the form for a `Task`: without the task's name in the names of arrays."""
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

    A batch has `shape.batch_size` items of one task; a short batch is filled up with padding items.
    This process computes the rows `row_indices`, int64 [b]. A batch has these arrays:

    - `input_ids`, `input_mask` and `segment_ids`, int32 [b, L], or [b, C, L] for choices.
    - `TASK/item_weights`, float32 [b]: 1, or 0 for padding items.
    - `TASK/NAME` for each of `targets`, [b, ...]: 0 for padding items.
    - `TASK/NAME` for each of `token_targets`, int32 [b, L] or [b, C, L]: -1 for padding.

    L is the smallest of `shape.length_buckets` that the longest item of the whole batch fits into,
    or else `max_seq_length`; it is the same in all processes.

    If there are several tasks, each step draws one with a probability proportional to
    (its number of items) ** `task_exponent`. Each task has its own epochs (`epoch_items`). The
    batches depend only on (seed, step) and on the lengths of the items. They do not depend on the
    mesh, the number of processes, the first step, or the order of the tasks.

    Raises `UserError` if a task has no rows, and `ValueError` if a row is longer than
    `shape.max_seq_length`; both are raised by this call, before the first batch is read.
    """
    # Sorted: the draws must not depend on the order in which the tasks are given.
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
    # Each stream is opened at the task's own step. So a resumed run does not go through the steps
    # before.
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

    # The generator is an inner function. If this function were a generator, the checks above would
    # run only when the first batch is read.
    return batches()


def eval_batches(
    encoded: EncodedExamples, shape: BatchShape, *, row_indices: np.ndarray, task: str = ""
) -> Iterator[tuple[np.ndarray, Numpy]]:
    """Yield (items of the whole batch, batch), with each item once, the longest items first.

    Items are int64 [batch_size], -1 for padding items in the last batch. The batch has this
    process's rows, as in `train_batches`; without a `task` the names of its arrays have no task.
    Without items there are no batches.
    """
    lengths = item_lengths(encoded, shape.max_seq_length)
    # Stable: NumPy's default sort may order equal lengths in another way on another CPU.
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

    The iterator never ends. `lengths` has the length of each item. An epoch is a permutation of the
    items, keyed by (seed, task, epoch). It is divided into windows of up to `MAX_WINDOW` batches.
    The items of a window are sorted by length and divided into batches, and the batches are
    shuffled, so a batch has items of similar lengths. The rest of the permutation is the epoch's
    last batch, filled up with -1. It is a random sample: otherwise items of some lengths would
    always be in the short batch, where each item has a larger weight.
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
    """Return the bounds of an epoch's windows, whose sizes differ by no more than one batch."""
    if batches == 0:
        return []
    windows = max(-(-batches // MAX_WINDOW), min(batches, MIN_WINDOWS))
    return [window * batches // windows for window in range(windows + 1)]


def _window_items(
    lengths: np.ndarray, batch_size: int, begin: int, end: int, key: tuple[int, ...]
) -> np.ndarray:
    """Return the items of an epoch's batches `begin` to `end`, int64 [end - begin, batch_size]."""
    # The window's own positions alone: the cost of `permute` does not depend on the epoch's size.
    items = permute(np.arange(begin * batch_size, end * batch_size), len(lengths), (*key, _ITEMS))
    # Stable, as in `eval_batches`: every machine must make the same batches.
    batches = items[np.argsort(lengths[items], kind="stable")].reshape(-1, batch_size)
    # `begin` is in the key, so that each window of an epoch is shuffled in its own way.
    return batches[permute(np.arange(end - begin), end - begin, (*key, _BATCHES, begin))]


def draw_tasks(sizes: Sequence[int], exponent: float, steps: int, seed: int) -> np.ndarray:
    """Draw the task of each step, int64 [steps] in 0..tasks-1, in proportion to size ** exponent.

    The draws of a step do not depend on the number of steps.
    """
    if len(sizes) == 1:
        return np.zeros(steps, np.int64)
    bounds = np.cumsum(np.array(sizes, np.float64) ** exponent)
    # Raw words of a counter-based generator are used, because numpy guarantees that they never
    # change. It gives no such guarantee for `Generator.random`.
    words = np.random.Philox(np.random.SeedSequence((seed, _TASKS))).random_raw(steps)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # 53 bits: all that a float64 holds
    # The last bound is exactly 1 and a draw is below 1, so the result is always a task's number.
    return np.searchsorted(bounds / bounds[-1], uniform, side="right")


def _word_of(name: str) -> int:
    """Return 32 bits of a name; Python's own hash differs from process to process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def item_lengths(encoded: EncodedExamples, max_seq_length: int) -> np.ndarray:
    """Return the number of ids in each item's longest row, int64 [items]."""
    by_row = np.diff(encoded.offsets)
    lengths = by_row.reshape(encoded.items, encoded.choices).max(axis=1)
    longest = lengths.max(initial=0)
    if longest > max_seq_length:
        raise ValueError(f"a row of {longest} ids, max_seq_length is {max_seq_length}")
    return lengths


def fill_up(items: np.ndarray, batch_size: int) -> np.ndarray:
    """Return `items`, padded with -1 to `batch_size`."""
    return np.pad(items, (0, batch_size - len(items)), constant_values=-1)


def padded_length(lengths: np.ndarray, items: np.ndarray, shape: BatchShape) -> int:
    """Return the padded length of a batch: the smallest bucket that is long enough for `items`.

    It is `max_seq_length` if no bucket is long enough. Items of -1 are padding. Inference does not
    use these buckets: see `bertjax.inference.lengths.padded_length`.
    """
    longest = lengths[items[items >= 0]].max(initial=0)
    # A bucket above `max_seq_length` is passed over: no row is longer, so it would only add
    # padding.
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
    # Whole arrays, without a loop over items: the number of NumPy calls does not grow with the
    # batch.
    real, choices = items >= 0, encoded.choices
    row_indices = (items[real, None] * choices + np.arange(choices)[None, :]).reshape(-1)
    is_row = np.repeat(real, choices)
    begins, ends = encoded.offsets[row_indices], encoded.offsets[row_indices + 1]
    lengths, second = np.zeros(len(is_row), np.int64), np.zeros(len(is_row), np.int64)
    lengths[is_row], second[is_row] = ends - begins, encoded.second_begins[row_indices]
    positions = np.arange(length)[None, :]
    mask = positions < lengths[:, None]
    source = ranges(begins, ends)
    shape = (len(items), length) if choices == 1 else (len(items), choices, length)

    def padded(flat: np.ndarray, padding: int) -> np.ndarray:
        array = np.full(mask.shape, padding, np.int32)
        array[mask] = flat[source]
        return array.reshape(shape)

    def by_item(values: np.ndarray) -> np.ndarray:
        # 0 is a valid class, so padding never points outside of a table. Its weight of 0 keeps it
        # out of the loss.
        array = np.zeros((len(items), *values.shape[1:]), values.dtype)
        array[real] = values[items[real]]
        return array

    prefix = f"{task}{SEPARATOR}" if task else ""
    batch = {
        "input_ids": padded(encoded.ids, pad_id),
        "input_mask": mask.astype(np.int32).reshape(shape),
        # Padding has segment 0, as in run_classifier.py of the original BERT.
        "segment_ids": (mask & (positions >= second[:, None])).astype(np.int32).reshape(shape),
        f"{prefix}item_weights": real.astype(np.float32),
    }
    for name, values in encoded.targets.items():
        batch[prefix + name] = by_item(values)
    for name, flat in encoded.token_targets.items():
        batch[prefix + name] = padded(flat, -1)
    return batch
