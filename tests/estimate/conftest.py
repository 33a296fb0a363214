"""Programs that the TPU compiler really compiles, a few seconds each."""

import math

import numpy as np
import pytest

from bertjax.estimate.cost.collectives import DevicePlacement
from bertjax.estimate.program.hlo import parse

CHIP = "v5e"


class Compiled:
    """A function compiled for a slice: its parsed text, and the placement of its devices."""

    def __init__(self, executable, arguments, mesh):
        self.executable, self.arguments = executable, arguments
        self.text = executable.as_text()
        self.module = parse(self.text)
        self.placement = DevicePlacement(mesh.shape, (0,) * math.prod(mesh.shape.values()))

    def schedule(self):
        from bertjax.estimate.cost.schedule import schedule
        from bertjax.estimate.hardware.chips import CHIPS

        return schedule(self.module, self.placement, CHIPS[CHIP])


@pytest.fixture(scope="session")
def slice_2x2():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (jax[tpu])")
    from bertjax.estimate.hardware.slices import open_slice

    return open_slice(f"{CHIP}:2x2")


@pytest.fixture(scope="session")
def compile_for(slice_2x2):
    """Return `compile_for(make, specs, axes)`: `make(mesh)` compiled for four v5e chips.

    `axes` are those of the mesh; `specs` are (shape, dtype, the mesh axis of each dimension).
    """
    import jax
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    def compile_(make, specs, axes):
        devices = np.array(slice_2x2.devices).reshape(tuple(axes.values()))
        mesh = Mesh(devices, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
        arguments = [
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*cut)))
            for shape, dtype, cut in specs
        ]
        return Compiled(jax.jit(make(mesh)).lower(*arguments).compile(), arguments, mesh)

    return compile_
