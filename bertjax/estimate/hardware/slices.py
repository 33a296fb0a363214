"""A slice that is not there, as the TPU compiler knows it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.errors import UserError, check
from bertjax.estimate.hardware.chips import Chip, chip_of

EXAMPLES = "v4:2x2x2, v5e:2x4, v5e:16x16, v5p:4x4x4, v6e:4x4"


@dataclass(frozen=True)
class Slice:
    """Devices to compile for."""

    topology: str
    """Its name, such as `v5e:4x4`."""
    slices: int
    """How many of these, joined by the data centre's network."""
    chip: Chip
    devices: Sequence[Any]
    """Descriptions of the devices, of all slices."""


def prepare_environment() -> None:
    """Keep JAX on the CPU of this machine; call it before JAX starts, in a process that does
    nothing else with JAX.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = (
        "0"  # programs for absent devices go in, and cannot be read again
    )


def _prepare_compiler() -> None:
    """Keep the TPU compiler from looking for a TPU, from locking out others, and from talking."""
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = (
        "1"  # else one process at a time, since each might want the chip
    )
    for name, value in {
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(name, value)


def open_slice(topology: str, slices: int = 1) -> Slice:
    """The devices of `slices` times `topology`.

    Raises `UserError` where the compiler is not installed, or knows no such slice.
    """
    chip = chip_of(topology)
    check(0 < slices <= 256, where="--slices", found=slices, expected="1 to 256")
    _prepare_compiler()
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        missing = (
            "bertjax compile: found no libtpu, expected the TPU compiler: pip install 'jax[tpu]'"
        )
        raise UserError(missing) from error
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chip.name == "v4":
        options["chip_config_name"] = (
            "megacore"  # as JAX runs it: the chip's two cores are one device
        )
    if topology.partition(":")[2] in ("1x1", "1x1x1"):
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--topology: found {topology} ({reason}), expected a slice such as {EXAMPLES}"
        ) from error
    return Slice(topology, slices, chip, found.devices)
