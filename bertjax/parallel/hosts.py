"""What differs when the program runs on several hosts: each feeds its part of the batch."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.parallel.rules import batch_sharding


def global_batch(mesh: Mesh, rows: Mapping[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays, cut over the mesh's batch axes.

    `rows` are those of `process_rows`; `batch_size` is the size of the whole batch.
    """
    layout = batch_sharding(mesh)
    # global_shape is given always: without it JAX infers one, and infers wrongly where
    # the batch does not span the processes.
    return {
        name: jax.make_array_from_process_local_data(layout, values, (batch_size, *values.shape[1:]))
        for name, values in rows.items()
    }


def process_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of the global batch that this process's devices hold; `batch_size` divides by the batch's parts."""
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    bounds = [index[0].indices(batch_size)[:2] for index in held.values() if index is not None]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))
