"""Memory: what is certain not to fit is refused before it is asked for."""

import math
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.errors import UserError, check, one_line

FEWER = "fewer rows, or train.gradient_accumulation_steps that divides them"


def memory_bytes(devices: Sequence[jax.Device]) -> int:
    """Return the memory of some devices together, in bytes; for CPUs that of their hosts.

    It is never too small: where a device does not tell its memory, it counts as one exabyte.
    """
    local = [device for device in devices if device.process_index == jax.process_index()]
    if not local:
        return 1 << 60
    if local[0].platform == "cpu":
        # All CPU devices of a process share the host's memory.
        of_process = host_bytes()
    else:
        limits = [(device.memory_stats() or {}).get("bytes_limit", 1 << 60) for device in local]
        of_process = sum(limits)
    # Processes have the same devices each.
    return of_process * -(-len(devices) // len(local))


def host_bytes() -> int:
    """Return the memory that this process may have: the host's, or less by `ulimit -v`."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)


def check_fits(needed: int, available: int, *, where: str, found: object, expected: str) -> None:
    """Raise `UserError` where the bytes that are needed at the least are more than there are."""
    check(
        needed <= available,
        where=where,
        found=f"{found}, which takes {needed / 2**30:,.1f} GiB or more",
        expected=f"{expected}: there are {available / 2**30:,.1f} GiB",
    )


@contextmanager
def memory_errors(where: str, found: object, expected: str) -> Iterator[None]:
    """Turn the end of memory in the block into a `UserError`, which names the field to change."""
    try:
        yield
    # NumPy's has the size of the array in its text; XLA's has a status in its text alone.
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = one_line(error, limit=120) or "no memory left"
        raise UserError(
            f"{where}: found {found}, too much for the memory ({reason}), expected {expected}"
        ) from error


def check_memory(config: Config, mesh: Mesh, state: Any) -> None:
    """Raise `UserError` for a model or a batch that all devices of `mesh` together cannot hold.

    `state` has the shapes of the parameters and of the optimizer's moments. This is a lower bound,
    so nothing is refused that could run: of the state each array once, of a part of the batch the
    output of one layer. It is asked before the program is compiled, which takes minutes for such
    shapes.
    """
    available = memory_bytes(mesh.devices.flatten().tolist())
    held = 0
    for leaf in jax.tree.leaves(state):
        held += math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    check_fits(
        held, available, where="model", found="parameters and moments", expected="a smaller model"
    )
    check_batch_memory(config, mesh, held=held)


def check_batch_memory(config: Config, mesh: Mesh, *, held: int = 0) -> None:
    """Raise `UserError` for a batch that does not fit beside what is `held`, in bytes."""
    # Of the lengths that batches are padded to, the shortest: it may be the only one that occurs.
    rows, length = config.train.batch_size, min(config.row_lengths)
    part = rows // config.train.gradient_accumulation_steps
    # In the model's numbers, two bytes each at the least; and an int32 for each id of the batch.
    outputs = part * length * config.model.hidden_size * 2
    check_fits(
        held + outputs + rows * length * 4,
        memory_bytes(mesh.devices.flatten().tolist()),
        where="train.batch_size",
        found=_batch_shape(config),
        expected=FEWER,
    )


def batch_memory_errors(config: Config) -> AbstractContextManager[None]:
    """Turn the end of memory in the block, which computes batches, into a `UserError`."""
    return memory_errors("train.batch_size", _batch_shape(config), FEWER)


def _batch_shape(config: Config) -> str:
    return f"{config.train.batch_size:,} rows of {min(config.row_lengths):,} ids or more"
