"""The compiled program as the TPU compiler prints it: computations of instructions, in the order
they run.
"""

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

BITS = {
    "pred": 8,
    "token": 0,
    "bf16": 16,
}  # others end in their number of bits, as s32 and f8e4m3fn begin with it
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(calls|body|condition|to_apply|branch_computations|true_computation|false_computation)=\{?((?:%[\w.\-]+(?:, )?)+)"
)


class Shape(NamedTuple):
    """One array of a result."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Its size without the padding of the layout."""
        bits = BITS.get(self.dtype)
        if bits is None:
            found = re.search(r"\d+", self.dtype)
            bits = int(found.group()) if found else 0
        return -(-self.size * bits // 8)


@dataclass(frozen=True)
class Instruction:
    """`name = shapes opcode(operands), attributes`."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    """What stands between the parentheses."""
    attributes: str

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The backend's notes on it; empty where there are none."""
        _, found, rest = self.attributes.partition("backend_config=")
        if not found or not rest.startswith("{"):
            return {}
        return json.JSONDecoder().raw_decode(rest)[0]

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate; None where it gives none."""
        given = self.config.get("window_config", {}).get("estimated_cycles")
        return None if given is None else int(given)

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from, or ''."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found.group(1) if found else ""

    @property
    def target(self) -> str:
        """Of a custom call, what is called."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def called(self, kind: str) -> tuple[str, ...]:
        """Names of the computations that it calls as `kind` (calls, body, condition,
        branch_computations, …).
        """
        notes = re.sub(r'"(?:[^"\\]|\\.)*"', '""', self.attributes.partition("backend_config=")[0])
        return tuple(
            name
            for key, names in _CALLED.findall(notes)
            if key == kind
            for name in _NAME.findall(names)
        )

    def attribute(self, name: str) -> str | None:
        """The value of a simple attribute, such as `index` or `direction`."""
        found = re.search(rf"\b{name}=([^,\s]+)", self.attributes)
        return found.group(1) if found else None


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order they run."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """In the order of their numbers."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return tuple(sorted(found, key=lambda i: int(i.literal)))


@dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """The program that `compiled.as_text()` printed."""
    computations: dict[str, Computation] = {}
    entry = None
    name, lines = "", []  # type: str, list[str]
    for line in text.splitlines():
        if not name:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if header and not line.startswith("HloModule"):
                name, lines = header.group(2), []
                if header.group(1):
                    entry = name
        elif re.fullmatch(r'}(, execution_thread="[^"]*")?', line):
            computations[name] = _computation(name, lines)
            name = ""
        elif re.match(r"  (ROOT )?%[\w.\-]+ = ", line):
            lines.append(line)
        elif lines:
            lines[-1] += line  # an attribute that holds line breaks
    if entry is None:
        raise ValueError("no ENTRY computation in the compiled program's text")
    return Module(computations, computations[entry])


def _computation(name: str, lines: list[str]) -> Computation:
    instructions = [_instruction(line) for line in lines]
    root = next(i for line, i in zip(lines, instructions, strict=True) if line.startswith("  ROOT"))
    return Computation(name, {i.name: i for i in instructions}, root)


def _instruction(line: str) -> Instruction:
    left, _, right = line.partition(" = ")
    right = re.sub(r"/\*index=\d+\*/", "", right)
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    shapes = tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(right[:end])
    )
    opcode, _, rest = right[end:].lstrip().partition("(")
    inside = _closing(f"({rest}", 0) - 1
    literal = rest[: inside - 1]
    operands = tuple(_NAME.findall(literal))
    return Instruction(left.split("%")[-1], opcode, shapes, operands, literal, rest[inside:])


def _closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return start + found.end()
    raise ValueError(f"unbalanced parentheses in {text[:100]}")
