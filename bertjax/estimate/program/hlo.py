"""Compiled programs as the TPU compiler prints them: computations of instructions, in order."""

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

# Other dtypes have their number of bits after the first letters, as s32 and f8e4m3fn do.
# A pred takes a byte for its one bit, and a token has no data.
BITS = {"pred": 8, "token": 0, "bf16": 16}
# A shape without its layout, which follows in braces: bf16[8,128]{1,0:T(8,128)}.
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(calls|body|condition|to_apply|branch_computations|true_computation|false_computation)"
    r"=\{?((?:%[\w.\-]+(?:, )?)+)"
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def first_group(pattern: str, text: str) -> str | None:
    """Return the first group of a pattern's first match in a text; None if nothing matches."""
    match = re.search(pattern, text)
    return match.group(1) if match else None


class Shape(NamedTuple):
    """One array of a result."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """The number of bytes, without the padding of the tiled layout."""
        bits = BITS.get(self.dtype)
        if bits is None:
            bits = int(first_group(r"(\d+)", self.dtype) or 0)
        # Rounded up: an array of 4-bit numbers may end inside a byte.
        return -(-self.size * bits // 8)


@dataclass(frozen=True)
class Instruction:
    """An instruction; in the text it is `name = shapes opcode(operands), attributes`."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    """The text between the parentheses: the operands, a constant's value, a parameter's number."""
    attributes: str

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(shape.bytes for shape in self.shapes)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The backend's configuration of the instruction; empty if there is none."""
        _, _, rest = self.attributes.partition("backend_config=")
        if not rest.startswith("{"):
            return {}
        # Other attributes may follow, which `json.loads` would refuse.
        return json.JSONDecoder().raw_decode(rest)[0]

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate of the instruction's time, in cycles; None if it gives none."""
        cycles = self.config.get("window_config", {}).get("estimated_cycles")
        return None if cycles is None else int(cycles)

    @property
    def op_name(self) -> str:
        """JAX's name of the traced operation that the instruction comes from, or ''."""
        return first_group(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes) or ""

    @property
    def target(self) -> str:
        """The name of the function that a custom call calls; '' for other instructions."""
        return first_group(r'custom_call_target="([^"]*)"', self.attributes) or ""

    def called(self, kind: str) -> tuple[str, ...]:
        """Return the names of the computations that the instruction calls in the attribute `kind`.

        Kinds are calls, body, condition, branch_computations, …
        """
        # Strings and the backend's configuration may hold text that looks like a call.
        attributes, _, _ = self.attributes.partition("backend_config=")
        attributes = _STRING.sub('""', attributes)
        called: list[str] = []
        for key, names in _CALLED.findall(attributes):
            if key == kind:
                called += _NAME.findall(names)
        return tuple(called)

    def attribute(self, name: str) -> str | None:
        """Return the value of a simple attribute such as `index` or `direction`, else None."""
        return first_group(rf"\b{name}=([^,\s]+)", self.attributes)


@dataclass(frozen=True)
class Computation:
    """A computation: its instructions by name, in the order they run."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """The parameters, in the order of their numbers."""
        parameters = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return tuple(sorted(parameters, key=lambda parameter: int(parameter.literal)))


@dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: Computation
    """The computation that runs first."""

    def called_instructions(self, instruction: Instruction) -> list[Instruction]:
        """List the instructions of the computations that a fusion or asynchronous start calls."""
        called: list[Instruction] = []
        for name in instruction.called("calls"):
            called += self.computations[name].instructions.values()
        return called


def parse(text: str) -> Module:
    """Read the program that `compiled.as_text()` printed; raise `ValueError` without an entry."""
    computations: dict[str, Computation] = {}
    entry = None
    name = ""
    lines: list[str] = []
    for line in text.splitlines():
        if not name:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if header and not line.startswith("HloModule"):
                name, lines = header.group(2), []
                if header.group(1):
                    entry = name
        # In a computation for a sparse core, the name of the thread follows the closing brace.
        elif re.fullmatch(r'}(, execution_thread="[^"]*")?', line):
            computations[name] = _computation(name, lines)
            name = ""
        elif re.match(r"  (ROOT )?%[\w.\-]+ = ", line):
            lines.append(line)
        elif lines:
            lines[-1] += line  # an attribute's value may hold line breaks
    if entry is None:
        raise ValueError("no ENTRY computation in the compiled program's text")
    return Module(computations, computations[entry])


def _computation(name: str, lines: list[str]) -> Computation:
    instructions = {}
    root = None
    for line in lines:
        instruction = _instruction(line)
        instructions[instruction.name] = instruction
        if line.startswith("  ROOT"):
            root = instruction
    if root is None:
        raise ValueError(f"no ROOT in the computation {name}")
    return Computation(name, instructions, root)


def _instruction(line: str) -> Instruction:
    left, _, right = line.partition(" = ")
    right = re.sub(r"/\*index=\d+\*/", "", right)  # comments that count elements of long tuples
    shapes_end = _closing(right) if right.startswith("(") else right.index(" ")
    shapes = tuple(_shape(dtype, dims) for dtype, dims in _ARRAY.findall(right[:shapes_end]))
    call = right[shapes_end:].lstrip()
    opcode, _, _ = call.partition("(")
    arguments = call[len(opcode) :]
    arguments_end = _closing(arguments)
    literal = arguments[1 : arguments_end - 1]
    return Instruction(
        name=left.split("%")[-1],
        opcode=opcode,
        shapes=shapes,
        operands=tuple(_NAME.findall(literal)),
        literal=literal,
        attributes=arguments[arguments_end:],
    )


def _shape(dtype: str, dims: str) -> Shape:
    return Shape(dtype, tuple(map(int, re.findall(r"\d+", dims))))


def _closing(text: str) -> int:
    """Return the position after the parenthesis that closes the first one of the text."""
    depth = 0
    for parenthesis in re.finditer(r"[()]", text):
        depth += 1 if parenthesis.group() == "(" else -1
        if depth == 0:
            return parenthesis.end()
    raise ValueError(f"unbalanced parentheses in {text[:100]}")
