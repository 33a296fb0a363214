"""Memory: what is certain not to fit is refused before it is asked for."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax

from bertjax.errors import UserError, check, one_line


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
