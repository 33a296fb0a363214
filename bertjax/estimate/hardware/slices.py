"""Descriptions of TPU slices for the compiler, without the devices themselves."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.errors import UserError, check, one_line
from bertjax.estimate.hardware.chips import Chip, chip_of

EXAMPLES = "v4:2x2x2, v5e:2x4, v5e:16x16, v5p:4x4x4, v6e:4x4"
MAX_SLICES = 256
# Errors only are logged; and the facts of a host that the metadata server would give.
_COMPILER_DEFAULTS = {
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclass(frozen=True)
class Slice:
    """Devices to compile for."""

    topology: str
    """The name of one slice, such as `v5e:4x4`."""
    slices: int
    """The number of such slices, joined by the data center's network."""
    chip: Chip
    devices: Sequence[Any]
    """Descriptions of the devices, of all slices."""


def prepare_environment() -> None:
    """Keep JAX on the CPU of this machine.

    Call it before JAX starts, in a process that does nothing else with JAX.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Programs for absent devices would be written to the cache, and cannot be read again.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"


def _prepare_compiler() -> None:
    """Keep the TPU compiler from looking for a TPU, locking out other processes, and logging."""
    # Otherwise the compiler asks the metadata server, which exists only on TPU hosts.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Otherwise only one process at a time may load libtpu, because each might use the chip.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    for name, value in _COMPILER_DEFAULTS.items():
        os.environ.setdefault(name, value)


def open_slice(topology: str, slices: int = 1) -> Slice:
    """Return the devices of `slices` (1 to 256) times `topology`.

    Raises `UserError` where the compiler is not installed, or knows no such slice.
    """
    chip = chip_of(topology)
    check(0 < slices <= MAX_SLICES, where="--slices", found=slices, expected=f"1 to {MAX_SLICES}")
    _prepare_compiler()
    try:
        # Only to see whether it is there, so that the error can say what to install.
        import libtpu  # noqa: F401
    except ImportError as error:
        raise UserError(
            "bertjax compile: found no libtpu, expected the TPU compiler: pip install 'jax[tpu]'"
        ) from error
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if slices > 1:
        options["num_slices"] = slices
    if chip.name == "v4":
        # As JAX runs it: the chip's two cores are one device.
        options["chip_config_name"] = "megacore"
    if topology.partition(":")[2] in ("1x1", "1x1x1"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # by default a host has more chips than one
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except JaxRuntimeError as error:
        reason = one_line(error, limit=None)
        raise UserError(
            f"--topology: found {topology} ({reason}), expected a slice such as {EXAMPLES}"
        ) from error
    return Slice(topology, slices, chip, description.devices)
