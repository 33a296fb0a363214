"""The one mesh of named axes that everything is laid out on."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bertjax.config import MeshConfig
from bertjax.errors import check
from bertjax.parallel.rules import MESH_AXES


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (default: all of them) as a mesh of `MESH_AXES`, `-1` resolved to what is left.

    Raises `UserError` when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {name: getattr(config, name) for name in MESH_AXES}
    fixed = 1
    for size in sizes.values():
        fixed *= 1 if size == -1 else size
    asked = " x ".join(f"{name} {size}" for name, size in sizes.items())
    expected = f"axes that multiply to the number of devices ({len(devices)})"
    if -1 in sizes.values():
        check(len(devices) % fixed == 0, where="mesh", found=asked, expected=expected)
        sizes = {
            name: len(devices) // fixed if size == -1 else size for name, size in sizes.items()
        }
    else:
        check(fixed == len(devices), where="mesh", found=asked, expected=expected)
    # Auto: Flax's linen modules do not run on the explicit axes that JAX gives by default.
    return Mesh(_arranged(sizes, devices), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _arranged(sizes: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in an array of these sizes, neighbours along an axis being neighbours on the
    slice's wires.

    Raises `UserError` where slices are several and `replica` does not count them.
    """
    shape = tuple(sizes.values())
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        # Without leave to split an axis of wires, most meshes of a v5p or v6e slice are refused.
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    expected = f"a multiple of the number of slices ({slices}): the other axes do not cross from slice to slice"
    check(
        sizes["replica"] % slices == 0,
        where="mesh.replica",
        found=sizes["replica"],
        expected=expected,
    )
    inside, across = (shape[0] // slices, *shape[1:]), (slices, *(1,) * (len(shape) - 1))
    return mesh_utils.create_hybrid_device_mesh(
        inside, across, devices, allow_split_physical_axes=True
    )
