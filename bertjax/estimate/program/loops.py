"""Numbers of iterations of a compiled program's loops, read from the loops' conditions.

The compiler does not always print how often a loop runs.
"""

from typing import NamedTuple

from bertjax.estimate.program.hlo import Computation, Instruction, Module

SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")
"""Opcodes whose result has the value of their operand."""


class Caller(NamedTuple):
    """The loop whose body a computation is, and the computation that contains this loop."""

    computation: Computation
    loop: Instruction
    outer: "Caller | None"
    """The caller of `computation`, if that is itself the body of a loop."""


def trip_count(
    module: Module, computation: Computation, loop: Instruction, outer: Caller | None
) -> int | None:
    """Return how often the body of `loop`, a while of `computation`, runs; None if unknown.

    Only loops over a counter are understood, such as those of `lax.scan` and `fori_loop`: the
    condition compares an element of the carried tuple with a constant, and the body adds a constant
    to this element.
    """
    # XLA prints its own count if its analysis found one.
    known = loop.config.get("known_trip_count")
    if known:
        return int(known["n"])
    condition = module.computations[loop.called("condition")[0]]
    body = module.computations[loop.called("body")[0]]
    test = condition.root
    if test.opcode != "compare" or len(test.operands) != 2:
        return None
    inside = Caller(computation, loop, outer)
    index = _element(condition, test.operands[0])
    bound = _constant(module, condition, test.operands[1], inside)
    if index is None or bound is None:
        return None
    start = _initial(module, index, inside)
    step = _step(module, body, index, inside)
    if start is None or not step:
        return None
    return _count(bound - start, step, test.attribute("direction"))


def _count(distance: int, step: int, direction: str | None) -> int | None:
    """Return the number of iterations of a counter that moves by `step` over `distance`."""
    # `-(-a // b)` is a / b rounded up, whatever the signs: a counter may also go down.
    match direction:
        case "LT" | "GT":
            return max(0, -(-distance // step))
        case "LE" | "GE":
            return max(0, distance // step + 1)
        case "NE":
            # A counter that steps over the bound never equals it.
            count, left = divmod(distance, step)
            return count if left == 0 and count >= 0 else None
    return None


def _through(computation: Computation, name: str) -> Instruction:
    """Return the instruction that computes the value of `name`; copies are passed over."""
    instruction = computation.instructions[name]
    while instruction.opcode in SAME_VALUE:
        instruction = computation.instructions[instruction.operands[0]]
    return instruction


def _element(computation: Computation, name: str) -> int | None:
    """Return the index of `name` in the carried tuple; None if it is not an element of it."""
    element = _through(computation, name)
    if element.opcode != "get-tuple-element":
        return None
    if _through(computation, element.operands[0]).opcode != "parameter":
        return None
    return int(element.attribute("index") or 0)


def _step(module: Module, body: Computation, index: int, inside: Caller) -> int | None:
    """Return the constant that the body adds to an element; None if it does anything else."""
    if body.root.opcode != "tuple":
        return None
    added = _through(body, body.root.operands[index])
    if added.opcode != "add":
        return None
    # A sum may be written either way round.
    for counter, amount in (added.operands, added.operands[::-1]):
        if _element(body, counter) == index:
            return _constant(module, body, amount, inside)
    return None


def _initial(module: Module, index: int, caller: Caller) -> int | None:
    """Return an element's value before the first iteration; None if it is not constant."""
    carried = _through(caller.computation, caller.loop.operands[0])
    if carried.opcode != "tuple":
        return None
    return _constant(module, caller.computation, carried.operands[index], caller.outer)


def _constant(
    module: Module, computation: Computation, name: str, caller: Caller | None
) -> int | None:
    """Return the integer that `name` always is; None if it is not constant.

    An element that a loop does not change keeps its value from before the loop.
    """
    instruction = _through(computation, name)
    if instruction.opcode == "constant":
        # Other literals, such as 0.5 or a list, are not values of a counter.
        is_integer = instruction.literal.lstrip("-").isdigit()
        return int(instruction.literal) if is_integer else None
    index = _element(computation, name)
    if index is None or caller is None:
        return None
    body = module.computations[caller.loop.called("body")[0]]
    if body.root.opcode != "tuple" or _element(body, body.root.operands[index]) != index:
        return None
    return _initial(module, index, caller)
