"""The parts of arrays that this process holds, on the host, and their sums."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from bertjax.training.integrity.array_sums import SUMS, WORD, part_sums

# Arrays whose sums are computed at once: the threads share the memory's bandwidth.
WORKERS = 4


class Part(NamedTuple):
    """A part of an array on the host, and the position of its first number in the whole."""

    values: np.ndarray
    starts: tuple[int, ...]


def sums_of(parts: Sequence[Part]) -> np.ndarray:
    """Return the sums of these parts of an array, uint32 `[SUMS]`."""
    total = np.zeros(SUMS, WORD)
    for part in parts:
        total += part_sums(part.values, part.starts)
    return total


def starts_of(index: Sequence[slice]) -> tuple[int, ...]:
    """Return where a part begins that has the place `index` in its array."""
    return tuple(part.start or 0 for part in index)


def sums_by_copy(arrays: Sequence[Any]) -> list[dict[int, list[int]]]:
    """Return the sums of what this process holds of each array, by the number of the copy.

    Where several processes hold the same part, the first of them has it in copy 0, the second in
    copy 1, and so on. So each process's numbers count, and no part is in a copy twice. Copies that
    are not complete, where some part is held by fewer processes than others, are left out.
    """
    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(_sums_by_copy, arrays))


def _sums_by_copy(array: Any) -> dict[int, list[int]]:
    if not isinstance(array, jax.Array):
        values = np.asarray(array)
        return {0: part_sums(values, (0,) * values.ndim).tolist()}
    processes = _processes_by_place(array)
    complete = min(len(holders) for holders in processes.values())
    own = jax.process_index()
    parts: dict[int, dict[tuple[int, ...], Part]] = {}
    for shard in array.addressable_shards:
        starts = starts_of(shard.index)
        copy = processes[starts].index(own)
        # Devices of a process that hold the same numbers got them from one reading.
        if copy < complete and starts not in parts.setdefault(copy, {}):
            parts[copy][starts] = Part(on_host(shard.data), starts)
    return {copy: sums_of(list(found.values())).tolist() for copy, found in parts.items()}


def copies_of(array: Any) -> int:
    """Return how many complete copies of an array the processes hold together."""
    if not isinstance(array, jax.Array):
        return 1
    return min(len(holders) for holders in _processes_by_place(array).values())


def _processes_by_place(array: jax.Array) -> dict[tuple[int, ...], list[int]]:
    """Return for each part of an array, by where it begins, the processes that hold it."""
    holders: dict[tuple[int, ...], set[int]] = {}
    for device, index in array.sharding.devices_indices_map(array.shape).items():
        holders.setdefault(starts_of(index), set()).add(device.process_index)  # type: ignore[attr-defined]
    return {starts: sorted(found) for starts, found in holders.items()}


def on_host(data: jax.Array) -> np.ndarray:
    """Return the numbers of an array on one device, without a copy where the device is the CPU.

    JAX keeps a copy on the host as long as the array lives: hence another array of the same memory.
    """
    alias = jax.make_array_from_single_device_arrays(data.shape, data.sharding, [data])
    return np.asarray(alias)
