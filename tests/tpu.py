"""Programs compiled by the real TPU compiler, for a chip that is not here."""

from contextlib import contextmanager

import jax
import pytest
from jax.sharding import SingleDeviceSharding


def compile_for_tpu(topology, function, *shapes):
    """The optimized HLO text of `function`, compiled for one chip of `topology`.

    `shapes` are those of its arguments.
    """
    pytest.importorskip("libtpu")
    from bertjax.estimate.hardware.slices import open_slice

    where = SingleDeviceSharding(open_slice(topology).devices[0])
    placed = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where) for s in shapes]
    with uncached():
        return jax.jit(function).lower(*placed).compile().as_text()


@contextmanager
def uncached():
    """Compile without the cache, which cannot read programs for absent devices again."""
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
