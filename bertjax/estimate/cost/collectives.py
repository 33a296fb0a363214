"""What a collective moves, along which mesh axes, and how long its links need for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bertjax.estimate.hardware.chips import Chip
from bertjax.estimate.program.device_groups import axes_of, parse_groups
from bertjax.estimate.program.hlo import Instruction, Module

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
    """Where the devices of a program are."""

    mesh: Mapping[str, int]
    """Sizes of the mesh's axes, in order."""
    slices: tuple[int, ...]
    """The slice of each device, in the mesh's order."""

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Places in the mesh of devices as a program numbers them: a program for several slices,
        within one.
        """
        first = np.flatnonzero(np.array(self.slices) == self.slices[0])
        return first[numbers] if numbers.max(initial=0) < len(first) else numbers

    def across(self) -> np.ndarray:
        """Devices that have the same number in each slice, by their places in the mesh: int
        `[numbers, slices]`.
        """
        slices = np.array(self.slices)
        return np.stack([np.flatnonzero(slices == number) for number in np.unique(slices)], axis=1)


@dataclass(frozen=True)
class Transfer:
    """One run of one collective, on one device."""

    kind: str
    bytes: int
    """Of the whole array, on each device: an all-gather's result, otherwise what goes in."""
    axes: tuple[str, ...]
    """Mesh axes that are joined; a permutation's are those along which it moves."""
    seconds: float
    """At the links' full bandwidth: a lower bound, without the latency of the hops."""
    overlapped: bool
    """Whether other work is scheduled meanwhile, as far as the program says."""


def collective_in(module: Module, instruction: Instruction) -> tuple[Instruction, str, bool] | None:
    """The collective that an instruction starts or does: (what has its groups, kind, overlapped);
    None: no such.

    A collective that the compiler overlaps stands in the text several times: in a fusion that
    starts it, in those that go on meanwhile, and in one that ends it. Only the first counts.
    """
    opcode = instruction.opcode
    if opcode.removesuffix("-start") in KINDS:
        return instruction, opcode.removesuffix("-start"), opcode.endswith("-start")
    if opcode not in ("fusion", "async-start"):
        return None
    inner = [
        i
        for name in instruction.called("calls")
        for i in module.computations[name].instructions.values()
    ]
    found = next((i for i in inner if i.opcode in KINDS), None)
    if found is None:
        return None
    if opcode == "async-start":
        return found, found.opcode, True
    if any(i.target == "AsyncCollectiveStart" for i in inner):
        return found, found.opcode, True
    algorithm = instruction.config.get("collective_algorithm_config")
    if algorithm and "async_collective_fusion_config" not in found.config:
        scatters = "AllReduceScatter" in algorithm.get("emitter", "")
        return found, "reduce-scatter" if scatters else found.opcode, False
    return None


def transfer(
    module: Module, instruction: Instruction, layout: DevicePlacement, chip: Chip
) -> Transfer | None:
    """What the instruction moves, if it starts or does a collective."""
    if instruction.opcode == "send":
        return _between_slices(instruction, layout, chip)
    found = collective_in(module, instruction)
    if found is None:
        return None
    inner, kind, overlapped = found
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", inner.attributes)
        groups = np.array(
            re.findall(r"\{(\d+),(\d+)\}", pairs.group(1) if pairs else ""), int
        ).reshape(-1, 2)
    else:
        groups = parse_groups(inner.attributes, len(layout.across()))
    groups = layout.places(groups)
    size = _result_bytes(inner, kind)
    if inner.opcode.startswith("reduce-scatter"):
        size *= groups.shape[1]
    axes = axes_of(groups, layout.mesh) if len(groups) else ()
    if kind == "collective-permute":
        axes = tuple(axis for axis in axes if axis != "part")
    crosses = any(len({layout.slices[device] for device in group}) > 1 for group in groups)
    links = 1 if kind == "collective-permute" else _links(instruction)
    bandwidth = (
        chip.dcn_bandwidth if crosses else min(chip.link_bandwidth * links, chip.ici_bandwidth)
    )
    return Transfer(kind, size, axes, _moved(kind, size, groups.shape[1]) / bandwidth, overlapped)


def _between_slices(send: Instruction, layout: DevicePlacement, chip: Chip) -> Transfer | None:
    """What goes over the data centre's network: the host sends it, after the slice has done its own
    part.
    """
    found = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    if found is None:
        return None
    kind, groups = found.group(1).lower().replace("_", "-"), layout.across()
    size = send.shapes[0].bytes
    return Transfer(
        kind,
        size,
        axes_of(groups, layout.mesh),
        _moved(kind, size, groups.shape[1]) / chip.dcn_bandwidth,
        False,
    )


def _result_bytes(instruction: Instruction, kind: str) -> int:
    """Bytes of what comes out; the start of a gather or permutation gives what goes in, then this,
    then its state.
    """
    shapes, inputs = instruction.shapes, len(instruction.operands)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        shapes = shapes[inputs : 2 * inputs]
    return sum(shape.bytes for shape in shapes)


def _moved(kind: str, size: int, members: int) -> float:
    """Bytes that each device sends, by the algorithms that send least (rings)."""
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    share = (members - 1) / max(members, 1)
    return size * share * (2 if kind == "all-reduce" else 1)


def _links(instruction: Instruction) -> int:
    """How many links of a chip the compiler's algorithm uses at once; a ring, both ways, where it
    does not say.
    """
    notes = instruction.config.get("collective_algorithm_config", {}).get("debug", "")
    found = re.search(r"colors:(\d+)", notes)
    return int(found.group(1)) if found else 2
