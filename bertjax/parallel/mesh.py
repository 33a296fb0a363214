"""The device mesh, over whose named axes all arrays are sharded."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bertjax.config import MeshConfig
from bertjax.errors import check
from bertjax.parallel.rules import MESH_AXES


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the devices (default: all) as a mesh of `MESH_AXES`; size -1 means all that are left.

    Raises `UserError` if the product of the sizes is not the number of devices, or if there are
    several slices and `replica` is not a multiple of their number.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {name: getattr(config, name) for name in MESH_AXES}
    fixed = 1
    for size in sizes.values():
        if size != -1:
            fixed *= size
    asked = " x ".join(f"{name} {size}" for name, size in sizes.items())
    expected = f"axes that multiply to the number of devices ({len(devices)})"
    if -1 in sizes.values():
        check(len(devices) % fixed == 0, where="mesh", found=asked, expected=expected)
        for name, size in sizes.items():
            if size == -1:
                sizes[name] = len(devices) // fixed
    else:
        check(fixed == len(devices), where="mesh", found=asked, expected=expected)
    # Auto axes, because Flax's linen modules do not run on explicit axes, which are JAX's default.
    return Mesh(_arranged(sizes, devices), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _arranged(sizes: dict[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Return the devices in an array of these sizes.

    Devices that are neighbours along an axis are linked directly in the slice, so collectives along
    this axis do not cross the whole slice. Raises `UserError` if `replica` is not a multiple of the
    number of slices.
    """
    shape = tuple(sizes.values())
    # Devices that belong to no slice lack the attribute.
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        # Without `allow_split_physical_axes`, JAX refuses most meshes of v5p and v6e slices.
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    expected = (
        f"a multiple of the number of slices ({slices}): "
        "the other axes do not cross from slice to slice"
    )
    check(
        sizes["replica"] % slices == 0,
        where="mesh.replica",
        found=sizes["replica"],
        expected=expected,
    )
    # `replica`, the first of MESH_AXES, goes across slices. Its only communication is the sum of
    # the gradients, once per step, for which the slower network between slices is fast enough. The
    # axes fsdp, tensor and sequence have collectives in every layer.
    inside = (shape[0] // slices, *shape[1:])
    across = (slices, *(1,) * (len(shape) - 1))
    return mesh_utils.create_hybrid_device_mesh(
        inside, across, devices, allow_split_physical_axes=True
    )
