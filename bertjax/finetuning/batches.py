"""From rows of ids to batches: which items each step trains on, and their padded arrays."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertjax.data.order import permute
from bertjax.data.ragged import ranges
from bertjax.errors import check
from bertjax.tasks.task import EncodedExamples

SEPARATOR = "/"  # between a task's name and what is its own in a batch

WINDOW = 64  # batches whose items are sorted by length together, at most
# in an epoch, at least: else a small task's batches would hold the same items again and again
WINDOWS = 4

_ITEMS, _BATCHES, _TASKS = (
    1,
    2,
    3,
)  # what a key is for; above 0, as zeros at its end would not count

Numpy = dict[str, np.ndarray]


def task_of(batch: Mapping[str, Any]) -> str:
    """The name of the task that a batch of `train_batches` is of, known by the batch's names alone."""
    (name,) = {key.partition(SEPARATOR)[0] for key in batch if SEPARATOR in key}
    return name


def plain_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch of `train_batches` by the plain names that a `Task` has for all of it."""
    return {key.partition(SEPARATOR)[2] or key: values for key, values in batch.items()}


def steps_per_epoch(rows: EncodedExamples, batch_size: int) -> int:
    """Batches that hold each item once, the last of them perhaps short."""
    return -(-rows.items // batch_size)


def train_batches(
    rows_by_task: Mapping[str, EncodedExamples],
    *,
    batch_size: int,
    steps_total: int,
    seed: int,
    length_buckets: Sequence[int],
    max_seq_length: int,
    task_exponent: float,
    pad_id: int,
    start: int,
    rows: np.ndarray,
) -> Iterator[Numpy]:
    """This process's `rows` of each batch from step `start` (0-based) to the last of `steps_total`.

    A batch is `batch_size` items (0 or above of them fillers) of one task; `rows` int64 [b] are the
    places in it that are wanted. It holds `input_ids`, `input_mask`, `segment_ids` int32 [b, L]
    (with choices [b, C, L]) and, as `TASK/NAME`, `item_weights` float32 [b] (1; 0 for fillers),
    `targets` [b, ...] (0 for fillers) and `token_targets` int32 [b, L] or [b, C, L] (-1 for
    padding). L is the least of `length_buckets` (ascending) that the longest item of the whole
    batch fits, `max_seq_length` if none does, so that all processes have the same.

    Of several tasks each is drawn in proportion to its items to the power of `task_exponent`, step
    by step, and goes through its own epochs (`epoch_items`). All is a function of (seed, step) and
    of the items' lengths: not of the mesh, of the number of processes, of where it starts, or of
    the order of the tasks.

    Raises `UserError` where a task has no rows, `ValueError` where a row is longer than
    `max_seq_length`.
    """
    names = sorted(rows_by_task)
    for name in names:
        check(
            rows_by_task[name].items > 0,
            where=f"task {name}",
            found="no training rows",
            expected="one or more",
        )
    lengths = [item_lengths(rows_by_task[name], max_seq_length) for name in names]
    drawn = task_draws([len(own) for own in lengths], task_exponent, steps_total, seed)
    earlier = np.bincount(drawn[:start], minlength=len(names)).tolist()
    streams = [
        epoch_items(own, batch_size, step, seed, name)
        for name, own, step in zip(names, lengths, earlier, strict=True)
    ]

    def batches() -> Iterator[Numpy]:
        for task in drawn[start:]:
            items, own = next(streams[task]), rows_by_task[names[task]]
            length = padded_length(lengths[task], items, length_buckets, max_seq_length)
            yield make_batch(own, items[rows], length, pad_id=pad_id, task=names[task])

    return (
        batches()
    )  # not a generator itself, so that mistakes are found before the first batch is asked for


def eval_batches(
    rows: EncodedExamples,
    *,
    batch_size: int,
    length_buckets: Sequence[int],
    max_seq_length: int,
    pad_id: int,
    rows_of_process: np.ndarray,
    task: str = "",
) -> Iterator[tuple[np.ndarray, Numpy]]:
    """Each item once, the longest first: (the items of the whole batch, this process's rows of the
    batch).

    Items are int64 [batch_size], -1 for those that fill up the last batch. The batch is as in
    `train_batches`; without a `task`, its names are plain, as a `Task` has them. No batches of no
    items.
    """
    lengths = item_lengths(rows, max_seq_length)
    order = np.argsort(-lengths, kind="stable")
    for begin in range(0, len(order), batch_size):
        items = filled(order[begin : begin + batch_size], batch_size)
        length = padded_length(lengths, items, length_buckets, max_seq_length)
        yield items, make_batch(rows, items[rows_of_process], length, pad_id=pad_id, task=task)


def epoch_items(
    lengths: np.ndarray, batch_size: int, step: int, seed: int, task: str
) -> Iterator[np.ndarray]:
    """The items of the batches of one task from its own `step` (0-based) on, without end: int64
    [batch_size] each.

    `lengths` has each item's. An epoch is a permutation of the items, keyed by (seed, task, epoch).
    Of windows of it, `WINDOW` batches or fewer, the items are sorted by length and cut into
    batches, and the batches shuffled: a batch holds items of like lengths. What is left at the
    permutation's end is the epoch's last batch, with -1 for fillers: a random sample like any
    other, so that no lengths weigh more for being in a short batch.
    """
    items = len(lengths)
    full, rest = divmod(items, batch_size)
    windows = max(-(-full // WINDOW), min(full, WINDOWS))
    bounds = [window * full // windows for window in range(windows + 1)] if windows else []
    first, place = divmod(step, -(-items // batch_size))
    for epoch in itertools.count(first):
        key = (seed, _word(task), epoch)
        for begin, end in itertools.pairwise(bounds):
            if end > place:
                yield from _window(lengths, batch_size, begin, end, key)[max(0, place - begin) :]
        if rest:
            yield filled(
                permute(np.arange(full * batch_size, items), items, (*key, _ITEMS)), batch_size
            )
        place = 0


def _window(
    lengths: np.ndarray, batch_size: int, begin: int, end: int, key: tuple[int, ...]
) -> np.ndarray:
    """The items of an epoch's batches `begin` to `end`, int64 [end - begin, batch_size]."""
    items = permute(np.arange(begin * batch_size, end * batch_size), len(lengths), (*key, _ITEMS))
    batches = items[np.argsort(lengths[items], kind="stable")].reshape(-1, batch_size)
    return batches[permute(np.arange(end - begin), end - begin, (*key, _BATCHES, begin))]


def task_draws(sizes: Sequence[int], exponent: float, steps: int, seed: int) -> np.ndarray:
    """The task of each step, int64 [steps] in 0..tasks-1, drawn in proportion to size ** exponent.

    What a step draws does not depend on the number of steps.
    """
    if len(sizes) == 1:
        return np.zeros(steps, np.int64)
    bounds = np.cumsum(np.array(sizes, np.float64) ** exponent)
    # Raw words of a counter-based generator: numpy promises that these stay as they are.
    words = np.random.Philox(np.random.SeedSequence((seed, _TASKS))).random_raw(steps)
    uniform = (words >> np.uint64(11)) * 2.0**-53
    return np.searchsorted(bounds / bounds[-1], uniform, side="right")


def _word(name: str) -> int:
    """32 bits of a name: Python's own hash differs from process to process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def item_lengths(rows: EncodedExamples, max_seq_length: int) -> np.ndarray:
    """Ids of each item, of its longest row where it has several; int64 [items]."""
    lengths = np.diff(rows.offsets).reshape(rows.items, rows.choices).max(axis=1)
    longest = lengths.max(initial=0)
    if longest > max_seq_length:
        raise ValueError(f"a row of {longest} ids, max_seq_length is {max_seq_length}")
    return lengths


def filled(items: np.ndarray, batch_size: int) -> np.ndarray:
    """`items` and as many -1 as they are short of `batch_size`."""
    return np.pad(items, (0, batch_size - len(items)), constant_values=-1)


def padded_length(
    lengths: np.ndarray, items: np.ndarray, length_buckets: Sequence[int], max_seq_length: int
) -> int:
    """The least of `length_buckets` that the longest of `items` (-1: fillers) fits, else
    `max_seq_length`.
    """
    longest = lengths[items[items >= 0]].max(initial=0)
    return min(
        (bucket for bucket in length_buckets if longest <= bucket <= max_seq_length),
        default=max_seq_length,
    )


def make_batch(
    rows: EncodedExamples, items: np.ndarray, length: int, *, pad_id: int, task: str = ""
) -> Numpy:
    """The arrays of `items` (int64 [b], -1: fillers), padded to `length`; named as in
    `eval_batches`.
    """
    real, choices = items >= 0, rows.choices
    wanted = (items[real, None] * choices + np.arange(choices)[None, :]).reshape(-1)
    here = np.repeat(real, choices)
    begins, ends = rows.offsets[wanted], rows.offsets[wanted + 1]
    lengths, second = np.zeros(len(here), np.int64), np.zeros(len(here), np.int64)
    lengths[here], second[here] = ends - begins, rows.second[wanted]
    places = np.arange(length)[None, :]
    mask = places < lengths[:, None]
    source = ranges(begins, ends)
    shape = (len(items), length) if choices == 1 else (len(items), choices, length)

    def padded(flat: np.ndarray, filler: int) -> np.ndarray:
        array = np.full(mask.shape, filler, np.int32)
        array[mask] = flat[source]
        return array.reshape(shape)

    def chosen(values: np.ndarray) -> np.ndarray:
        array = np.zeros((len(items), *values.shape[1:]), values.dtype)
        array[real] = values[items[real]]
        return array

    own = {"item_weights": real.astype(np.float32)}
    own |= {name: chosen(values) for name, values in rows.targets.items()}
    own |= {name: padded(flat, -1) for name, flat in rows.token_targets.items()}
    return {
        "input_ids": padded(rows.ids, pad_id),
        "input_mask": mask.astype(np.int32).reshape(shape),
        "segment_ids": (mask & (places >= second[:, None])).astype(np.int32).reshape(shape),
        **{f"{task}{SEPARATOR}{name}" if task else name: values for name, values in own.items()},
    }
