"""The FLOPs of a compiled program's matrix products."""

import math
import re

from bertjax.estimate.cost.schedule import Schedule
from bertjax.estimate.program.hlo import Computation, Instruction, Module


def program_flops(module: Module, schedule: Schedule) -> float:
    """FLOPs of the matrix products that a device does in a step; not those in custom kernels, which
    are not shown.
    """
    return sum((cost.times * _inside(module, cost.instruction) for cost in schedule.costs), 0.0)


def _inside(module: Module, instruction: Instruction) -> float:
    """Of an instruction, or of the computation that a fusion stands for."""
    if instruction.opcode != "fusion":
        return 0.0
    return computation_flops(module, module.computations[instruction.called("calls")[0]])


def computation_flops(module: Module, computation: Computation) -> float:
    """FLOPs of the products in a computation and in the fusions that it calls."""
    total = 0.0
    for instruction in computation.instructions.values():
        if instruction.opcode == "convolution":
            total += convolution_flops(computation, instruction)
        elif instruction.opcode == "dot":
            total += _dot_flops(computation, instruction)
        else:
            total += _inside(module, instruction)
    return total


def _dot_flops(computation: Computation, dot: Instruction) -> float:
    left = computation.instructions[dot.operands[0]].shapes[0]
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    contracted = (
        math.prod(left.dims[int(n)] for n in found.group(1).split(",") if n) if found else 1
    )
    return 2.0 * dot.shapes[0].size * contracted


def convolution_flops(computation: Computation, convolution: Instruction) -> float:
    """2 x outputs x multiplications each; the TPU compiler writes every matrix product as a
    convolution.

    A place of the window counts only where it lies on an entry of the input, neither on padding nor
    in the gaps of a dilation: so batched products, which it writes as convolutions that are mostly
    padding, count as products.
    """
    left, right = (
        computation.instructions[name].shapes[0].dims for name in convolution.operands[:2]
    )
    out = convolution.shapes[0].dims
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
    if labels is None:
        return 0.0
    inputs, kernel, result = labels.groups()
    window = _window(convolution.attributes)
    places = 1
    for axis in (c for c in result if c.isdigit()):
        steps = {name: values[int(axis)] for name, values in window.items()}
        places *= _valid(
            left[inputs.index(axis)], right[kernel.index(axis)], out[result.index(axis)], steps
        )
    groups = int(convolution.attribute("batch_group_count") or 1)
    return (
        2.0
        * places
        * left[inputs.index("b")]
        // groups
        * out[result.index("f")]
        * right[kernel.index("i")]
    )


def _window(attributes: str) -> dict[str, list[int]]:
    """For each spatial axis: stride, low padding, and the dilations of input and kernel."""
    text = re.search(r"window=\{([^}]*)\}", attributes)
    given = dict(part.split("=") for part in text.group(1).split()) if text else {}
    axes = len(given.get("size", "").split("x")) if given.get("size") else 0

    def numbers(name: str, default: int) -> list[int]:
        return [int(n) for n in given[name].split("x")] if name in given else [default] * axes

    pads = (
        [int(pad.split("_")[0]) for pad in given["pad"].split("x")]
        if "pad" in given
        else [0] * axes
    )
    return {
        "stride": numbers("stride", 1),
        "pad": pads,
        "left": numbers("lhs_dilate", 1),
        "right": numbers("rhs_dilate", 1),
    }


def _valid(left: int, right: int, out: int, steps: dict[str, int]) -> int:
    """Pairs of an output place and a window place that meet an entry of the input, along one axis."""
    count = 0
    for window in range(right):
        for place in range(out):
            at = place * steps["stride"] - steps["pad"] + window * steps["right"]
            count += at % steps["left"] == 0 and 0 <= at // steps["left"] < left
    return count
