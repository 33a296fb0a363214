"""Programs compiled by the real TPU compiler, for a chip that is not here."""

from contextlib import contextmanager

import jax
import pytest
from jax.sharding import SingleDeviceSharding


def compile_for_tpu(topology, function, *shapes):
    """The optimised HLO text of `function` for one chip of `topology`, its arguments of these
    shapes.
    """
    pytest.importorskip("libtpu")
    from bertjax.estimate.hardware.slices import open_slice

    where = SingleDeviceSharding(open_slice(topology).devices[0])
    placed = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where) for s in shapes]
    with uncached():
        return jax.jit(function).lower(*placed).compile().as_text()


@contextmanager
def uncached():
    """Programs for absent devices go into the compilation cache, and cannot be read again."""
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
