"""The one mesh of named axes that everything is laid out on."""

from collections.abc import Sequence

import jax
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
        check(len(devices) % fixed == 0, "mesh", asked, expected)
        sizes = {name: len(devices) // fixed if size == -1 else size for name, size in sizes.items()}
    else:
        check(fixed == len(devices), "mesh", asked, expected)
    # Auto: Flax's linen modules do not run on the explicit axes that make_mesh gives by default.
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)
