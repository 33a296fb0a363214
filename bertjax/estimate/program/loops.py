"""How often a loop of a compiled program runs: the compiler does not print it, its condition says
it.
"""

from typing import NamedTuple

from bertjax.estimate.program.hlo import Computation, Instruction, Module

SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")


class Caller(NamedTuple):
    """The loop that a computation is the body of, and where that loop stands."""

    computation: Computation
    loop: Instruction
    outer: "Caller | None"


def trip_count(
    module: Module, computation: Computation, loop: Instruction, outer: Caller | None
) -> int | None:
    """How often the body of `loop`, a while of `computation`, runs; None where the text does not
    say.

    Understood are loops over a counter, as `lax.scan` and `fori_loop` make them: the condition
    compares an element of the carried tuple with a constant, and the body adds a constant to it.
    """
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
    distance = bound - start
    match test.attribute("direction"):
        case "LT" | "GT":
            return max(0, -(-distance // step))
        case "LE" | "GE":
            return max(0, distance // step + 1)
        case "NE":
            return distance // step if distance % step == 0 and distance // step >= 0 else None
    return None


def _through(computation: Computation, name: str) -> Instruction:
    found = computation.instructions[name]
    while found.opcode in SAME_VALUE:
        found = computation.instructions[found.operands[0]]
    return found


def _element(computation: Computation, name: str) -> int | None:
    """Which element of the carried tuple `name` is, if it is one."""
    found = _through(computation, name)
    if found.opcode != "get-tuple-element":
        return None
    if _through(computation, found.operands[0]).opcode != "parameter":
        return None
    return int(found.attribute("index") or 0)


def _step(module: Module, body: Computation, index: int, inside: Caller) -> int | None:
    """What the body adds to the element."""
    if body.root.opcode != "tuple":
        return None
    added = _through(body, body.root.operands[index])
    if added.opcode != "add":
        return None
    for counter, amount in (added.operands, added.operands[::-1]):
        if _element(body, counter) == index:
            return _constant(module, body, amount, inside)
    return None


def _initial(module: Module, index: int, caller: Caller) -> int | None:
    """The element's value before the first pass."""
    carried = _through(caller.computation, caller.loop.operands[0])
    if carried.opcode != "tuple":
        return None
    return _constant(module, caller.computation, carried.operands[index], caller.outer)


def _constant(
    module: Module, computation: Computation, name: str, caller: Caller | None
) -> int | None:
    """The integer that `name` always is; elements that a loop does not change have their value
    before it.
    """
    found = _through(computation, name)
    if found.opcode == "constant":
        return int(found.literal) if found.literal.lstrip("-").isdigit() else None
    index = _element(computation, name)
    if index is None or caller is None:
        return None
    body = module.computations[caller.loop.called("body")[0]]
    kept = body.root.opcode == "tuple" and _element(body, body.root.operands[index]) == index
    return _initial(module, index, caller) if kept else None
