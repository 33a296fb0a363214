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
        """Return the positions in the mesh of devices as a program numbers them.

        A program for several slices numbers the devices within one.
        """
        first = np.flatnonzero(np.array(self.slices) == self.slices[0])
        # `initial`, since a permutation may have no pairs, which have no largest number.
        return first[numbers] if numbers.max(initial=0) < len(first) else numbers

    def across_slices(self) -> np.ndarray:
        """Return the groups of devices that have the same number in each slice.

        They are positions in the mesh, int `[numbers, slices]`.
        """
        slices = np.array(self.slices)
        return np.stack([np.flatnonzero(slices == number) for number in np.unique(slices)], axis=1)

    def crosses_slices(self, groups: np.ndarray) -> bool:
        """Tell whether a group, a row of positions in the mesh, has devices of several slices."""
        slices = np.array(self.slices)[groups]
        return bool((slices != slices[:, :1]).any())


@dataclass(frozen=True)
class Transfer:
    """One run of one collective, on one device."""

    kind: str
    bytes: int
    """Bytes of the array on each device: an all-gather's result, otherwise the input."""
    axes: tuple[str, ...]
    """Mesh axes that are joined; a permutation's are those along which it moves."""
    seconds: float
    """Time at the links' full bandwidth: a lower bound, without the latency of the hops."""
    overlapped: bool
    """True if other work is scheduled meanwhile, as far as the program says."""


class FoundCollective(NamedTuple):
    """A collective that an instruction starts or does."""

    instruction: Instruction
    """The one with the groups: the instruction itself, or one inside its fusion."""
    kind: str
    overlapped: bool


def find_collective(module: Module, instruction: Instruction) -> FoundCollective | None:
    """Find the collective that an instruction starts or does; None where there is none.

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
    """Return the transfer of an instruction that starts or does a collective, else None."""
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
    """Return what goes over the data center's network.

    The slices' hosts send it, after each slice has done its own part of the collective.
    """
    transfer_type = first_group(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    if transfer_type is None:
        return None
    # Written as ALL_REDUCE in this attribute alone.
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

    The start of a gather or permutation gives its inputs, then the results, then its state.
    """
    shapes, inputs = instruction.shapes, len(instruction.operands)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        shapes = shapes[inputs : 2 * inputs]
    return sum(shape.bytes for shape in shapes)


def _bytes_sent(kind: str, size: int, members: int) -> float:
    """Return the bytes that each device sends, by the algorithms that send least (rings).

    In a ring of n devices each passes on n - 1 of n parts; an all-reduce is a reduce-scatter and an
    all-gather.
    """
    # The least that any all-reduce sends: Patarasuk and Yuan, "Bandwidth optimal all-reduce
    # algorithms for clusters of workstations" (2009).
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    rounds = 2 if kind == "all-reduce" else 1
    return size * ((members - 1) / max(members, 1)) * rounds


def _links(instruction: Instruction) -> int:
    """Return the number of a chip's links that the compiler's algorithm uses at once.

    Where it does not say, 2: a ring, both ways.
    """
    notes = instruction.config.get("collective_algorithm_config", {}).get("debug", "")
    return int(first_group(r"colors:(\d+)", notes) or 2)
