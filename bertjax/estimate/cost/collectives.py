"""Bytes that a collective moves, the mesh axes it joins, and the time its links need."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertjax.estimate.hardware.chips import Chip
from bertjax.estimate.program.device_groups import PART, axes_of, parse_groups
from bertjax.estimate.program.hlo import Instruction, Module, first_group

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclass(frozen=True)
class DevicePlacement:
    """The positions of a program's devices in its mesh and slices."""

    mesh: Mapping[str, int]
    """Sizes of the mesh's axes, in order."""
    slices: tuple[int, ...]
    """The slice of each device, in the mesh's order."""

    def mesh_positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the positions in the mesh of the devices that have these numbers in a program.

        A program for several slices numbers only the devices of one slice.
        """
        first = np.flatnonzero(np.array(self.slices) == self.slices[0])
        # `initial` is needed because a permutation may have no pairs, so no largest number.
        return first[numbers] if numbers.max(initial=0) < len(first) else numbers

    def across_slices(self) -> np.ndarray:
        """Return the groups of devices that have the same number within their slices.

        The devices are given as positions in the mesh, int `[numbers, slices]`.
        """
        slices = np.array(self.slices)
        return np.stack([np.flatnonzero(slices == number) for number in np.unique(slices)], axis=1)

    def crosses_slices(self, groups: np.ndarray) -> bool:
        """Return whether a group of devices (positions in the mesh) lies in several slices."""
        slices = np.array(self.slices)[groups]
        return bool((slices != slices[:, :1]).any())


@dataclass(frozen=True)
class Transfer:
    """One run of one collective, on one device."""

    kind: str
    bytes: int
    """Bytes of the array on each device: an all-gather's result, otherwise the input."""
    axes: tuple[str, ...]
    """Mesh axes that are joined, or along which a permutation moves data."""
    seconds: float
    """Time at the links' full bandwidth: a lower bound, without the latency of the hops."""
    overlapped: bool
    """True if the program says that other work is scheduled at the same time."""


class FoundCollective(NamedTuple):
    """A collective that an instruction starts or performs."""

    instruction: Instruction
    """The instruction that has the groups: this one itself, or one inside its fusion."""
    kind: str
    overlapped: bool


def find_collective(module: Module, instruction: Instruction) -> FoundCollective | None:
    """Find the collective that an instruction starts or performs; None if there is none.

    If the compiler overlaps a collective with other work, the text has it several times: in a
    fusion that starts it, in fusions that run at the same time, and in one that ends it. Only the
    first one counts.
    """
    opcode = instruction.opcode
    kind = opcode.removesuffix("-start")
    if kind in KINDS:
        return FoundCollective(instruction, kind, opcode.endswith("-start"))
    if opcode not in ("fusion", "async-start"):
        return None
    inner = module.called_instructions(instruction)
    collective = next((i for i in inner if i.opcode in KINDS), None)
    if collective is None:
        return None
    starts = any(i.target == "AsyncCollectiveStart" for i in inner)
    if starts or opcode == "async-start":
        return FoundCollective(collective, collective.opcode, True)
    algorithm = instruction.config.get("collective_algorithm_config")
    if algorithm and "async_collective_fusion_config" not in collective.config:
        # If each device keeps only a part of an all-reduce, it is counted as a reduce-scatter.
        scatters = "AllReduceScatter" in algorithm.get("emitter", "")
        return FoundCollective(
            collective, "reduce-scatter" if scatters else collective.opcode, False
        )
    return None


def transfer_of(
    module: Module, instruction: Instruction, placement: DevicePlacement, chip: Chip
) -> Transfer | None:
    """Return the transfer of an instruction that starts or performs a collective, else None."""
    if instruction.opcode == "send":
        return _transfer_between_slices(instruction, placement, chip)
    collective = find_collective(module, instruction)
    if collective is None:
        return None
    kind = collective.kind
    is_permutation = kind == "collective-permute"
    if is_permutation:
        groups = _source_target_pairs(collective.instruction.attributes)
    else:
        devices_per_slice = len(placement.across_slices())
        groups = parse_groups(collective.instruction.attributes, devices_per_slice)
    groups = placement.mesh_positions(groups)
    size = _result_bytes(collective.instruction, kind)
    if collective.instruction.opcode.startswith("reduce-scatter"):
        size *= groups.shape[1]  # the result is one device's part of the input
    axes = axes_of(groups, placement.mesh) if len(groups) else ()
    if is_permutation:
        # Pairs of devices are a part of any longer axis, which says nothing about the permutation.
        axes = tuple(axis for axis in axes if axis != PART)
    if placement.crosses_slices(groups):
        bandwidth = chip.dcn_bandwidth
    else:
        links = 1 if is_permutation else _links(instruction)
        bandwidth = min(chip.link_bandwidth * links, chip.ici_bandwidth)
    seconds = _bytes_sent(kind, size, groups.shape[1]) / bandwidth
    return Transfer(kind, size, axes, seconds, collective.overlapped)


def _transfer_between_slices(
    send: Instruction, placement: DevicePlacement, chip: Chip
) -> Transfer | None:
    """Return the part of a collective that goes over the data center's network, if `send` is one.

    The slices' hosts send it, after each slice has done its own part of the collective.
    """
    transfer_type = first_group(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    if transfer_type is None:
        return None
    # Only this attribute writes a kind in capitals, such as ALL_REDUCE.
    kind = transfer_type.lower().replace("_", "-")
    groups = placement.across_slices()
    size = send.shapes[0].bytes
    seconds = _bytes_sent(kind, size, groups.shape[1]) / chip.dcn_bandwidth
    return Transfer(kind, size, axes_of(groups, placement.mesh), seconds, overlapped=False)


def _source_target_pairs(attributes: str) -> np.ndarray:
    """Read the pairs of devices of a permutation, int `[n, 2]`."""
    text = first_group(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes) or ""
    return np.array(re.findall(r"\{(\d+),(\d+)\}", text), int).reshape(-1, 2)


def _result_bytes(instruction: Instruction, kind: str) -> int:
    """Return the bytes of a collective's result.

    The instruction that starts a gather or a permutation lists the inputs, the results and its
    state, in this order.
    """
    shapes, inputs = instruction.shapes, len(instruction.operands)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        shapes = shapes[inputs : 2 * inputs]
    return sum(shape.bytes for shape in shapes)


def _bytes_sent(kind: str, size: int, members: int) -> float:
    """Return the bytes that each device sends in a ring, the algorithm that sends least.

    In a ring of n devices, each device passes on n - 1 of n parts, which is (n - 1) / n of `size`.
    An all-reduce is a reduce-scatter and an all-gather, so it sends twice as much.
    """
    # The least that any all-reduce sends: Patarasuk and Yuan, "Bandwidth optimal all-reduce
    # algorithms for clusters of workstations" (2009).
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    rounds = 2 if kind == "all-reduce" else 1
    return size * ((members - 1) / max(members, 1)) * rounds


def _links(instruction: Instruction) -> int:
    """Return the number of a chip's links that the compiler's algorithm uses at once.

    If the compiler does not say, it is 2: a ring in both directions.
    """
    notes = instruction.config.get("collective_algorithm_config", {}).get("debug", "")
    return int(first_group(r"colors:(\d+)", notes) or 2)
