"""FLOPs of a compiled program's matrix products."""

import re
from typing import NamedTuple

from bertjax.estimate.cost.schedule import Schedule
from bertjax.estimate.program.hlo import Computation, Instruction, Module, first_group


def program_flops(module: Module, schedule: Schedule) -> float:
    """Count the FLOPs of the matrix products that a device does in a step.

    Products in custom kernels do not count, because the program's text does not show them.
    """
    total = 0.0
    for cost in schedule.costs:
        total += cost.times * _flops_inside(module, cost.instruction)
    return total


def _flops_inside(module: Module, instruction: Instruction) -> float:
    """Count the FLOPs of the products in a fusion's computation; 0 for other instructions."""
    if instruction.opcode != "fusion":
        return 0.0
    return computation_flops(module, module.computations[instruction.called("calls")[0]])


def computation_flops(module: Module, computation: Computation) -> float:
    """Count the FLOPs of the products in a computation and in the fusions that it calls."""
    total = 0.0
    for instruction in computation.instructions.values():
        if instruction.opcode == "convolution":
            total += convolution_flops(computation, instruction)
        elif instruction.opcode == "dot":
            total += _dot_flops(computation, instruction)
        else:
            total += _flops_inside(module, instruction)
    return total


def _dot_flops(computation: Computation, dot: Instruction) -> float:
    left = computation.instructions[dot.operands[0]].shapes[0]
    axes = first_group(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes) or ""
    contracted = 1
    for axis in re.findall(r"\d+", axes):
        contracted *= left.dims[int(axis)]
    return 2.0 * dot.shapes[0].size * contracted


def convolution_flops(computation: Computation, convolution: Instruction) -> float:
    """Count 2 FLOPs for each multiplication: the TPU compiler writes each product as a convolution.

    A position of the window counts only if it lies on an entry of the input, neither on padding nor
    in a gap of a dilation. A batched product is written as a convolution with mostly padding, so it
    counts no more than the product itself.
    """
    left, right = (
        computation.instructions[name].shapes[0].dims for name in convolution.operands[:2]
    )
    out = convolution.shapes[0].dims
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
    if labels is None:
        return 0.0
    # Letters of the dimensions: b batch, f features of the input or the output, i and o the
    # kernel's input and output features; digits are the spatial axes.
    inputs, kernel, result = labels.groups()
    windows = _window_axes(convolution.attributes)
    positions = 1
    for axis in filter(str.isdigit, result):
        positions *= _valid_positions(
            left[inputs.index(axis)],
            right[kernel.index(axis)],
            out[result.index(axis)],
            windows[int(axis)],
        )
    groups = int(convolution.attribute("batch_group_count") or 1)
    batches = 2.0 * positions * left[inputs.index("b")] // groups
    return batches * out[result.index("f")] * right[kernel.index("i")]


class _WindowAxis(NamedTuple):
    """The window of a convolution along one spatial axis."""

    stride: int
    low_padding: int
    input_dilation: int
    kernel_dilation: int


def _window_axes(attributes: str) -> list[_WindowAxis]:
    """Read the window of a convolution; fields that the text leaves out get the neutral value."""
    window = first_group(r"window=\{([^}]*)\}", attributes) or ""
    fields = dict(field.split("=") for field in window.split())
    # No spatial axis: a plain matrix product.
    if not fields.get("size"):
        return []
    axes = len(fields["size"].split("x"))

    def numbers(name: str, default: int) -> list[int]:
        if name not in fields:
            return [default] * axes
        # Padding is `low_high` on each axis.
        return [int(value.split("_")[0]) for value in fields[name].split("x")]

    return [
        _WindowAxis(*values)
        for values in zip(
            numbers("stride", 1),
            numbers("pad", 0),
            numbers("lhs_dilate", 1),
            numbers("rhs_dilate", 1),
            strict=True,
        )
    ]


def _valid_positions(left: int, right: int, out: int, window: _WindowAxis) -> int:
    """Count, on one axis, pairs of an output and a window position that meet an input entry.

    `left`, `right` and `out` are the sizes of input, kernel and output.
    """
    # Input positions between a dilated input's entries hold zeros: gaps.
    count = 0
    for kernel_position in range(right):
        for output_position in range(out):
            position = output_position * window.stride - window.low_padding
            position += kernel_position * window.kernel_dilation
            entry, gap = divmod(position, window.input_dilation)
            if gap == 0 and 0 <= entry < left:
                count += 1
    return count
