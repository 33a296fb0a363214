"""Readable lists of a schedule: the most expensive operations, and the collectives."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from bertjax.estimate.cost.schedule import Schedule


@dataclass(frozen=True)
class Operation:
    """One instruction of the compiled program."""

    name: str
    where: str
    """The part of the model that the instruction comes from."""
    phase: str
    """forward, again (computed again for the backward pass), backward, or update."""
    times: int
    """The number of its runs in a step."""
    seconds: float
    """The time of all its runs in a step."""
    share: float
    """The share of this time in the step's time, 0 to 1."""
    basis: str
    """The source of the time, as in `schedule.Cost.basis`."""


@dataclass(frozen=True)
class Collective:
    """A collective of the compiled program."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes that it joins."""
    bytes: int
    """Bytes of one run, on each device."""
    times: int
    """The number of its runs in a step."""
    seconds: float
    """The time of all its runs in a step."""
    overlapped: bool
    """True if other work runs at the same time."""
    where: str
    phase: str


class Origin(NamedTuple):
    """The part of the model and the phase of the step that an operation comes from."""

    where: str
    phase: str


def most_expensive(schedule: Schedule, limit: int) -> tuple[Operation, ...]:
    """Return up to `limit` operations, those that take the largest share of a step first."""
    step = schedule.seconds
    operations = []
    for cost in sorted(schedule.costs, key=lambda cost: -cost.total)[:limit]:
        # The operations that follow take no time either, for example overlapped collectives.
        if cost.total <= 0:
            break
        where, phase = where_and_phase(cost.op_name)
        operations.append(
            Operation(
                name=cost.instruction.name,
                where=where,
                phase=phase,
                times=cost.times,
                seconds=cost.total,
                share=cost.total / step,
                basis=cost.basis,
            )
        )
    return tuple(operations)


def collectives_of(schedule: Schedule) -> tuple[Collective, ...]:
    """Return every collective, the longest first."""
    collectives = []
    for cost in schedule.costs:
        if cost.transfer is None:
            continue
        where, phase = where_and_phase(cost.op_name)
        collectives.append(
            Collective(
                kind=cost.transfer.kind,
                axes=cost.transfer.axes,
                bytes=cost.transfer.bytes,
                times=cost.times,
                seconds=cost.transfer.seconds * cost.times,
                overlapped=cost.transfer.overlapped,
                where=where,
                phase=phase,
            )
        )
    return tuple(sorted(collectives, key=lambda collective: -collective.seconds))


# Signs of a phase in JAX's names. The first one that is found counts: the name of what is computed
# again also has `transpose(`, and a name with `transpose(` also has `jvp(`.
_PHASES = {"rematted_computation": "again", "transpose(": "backward", "jvp(": "forward"}
_CALLED = {"closed_call", "eval_jaxpr"}  # names of the same thing in JAX 0.10 and in 0.12
_STRUCTURE = {
    "while",
    "body",
    "cond",
    "checkpoint",
    "rematted_computation",
    "remat",
    "custom_vjp_call",
    *_CALLED,
}
"""Parts of JAX's names that stand for control flow and not for a module."""
# A method of the model and the module that it calls. The method is left out, as it adds nothing.
_REDUNDANT = (
    ["encode", "encoder"],
    ["encode", "embeddings"],
    ["mlm_logits", "mlm"],
    ["mlm_cross_entropy", "mlm"],
)


def where_and_phase(op_name: str) -> Origin:
    """Read the part of the model and the phase from JAX's name of an operation.

    For `jit(step)/transpose(jvp(f))/encoder/while/body/mlp/dot_general` the part is
    `encoder/mlp dot_general` and the phase `backward`. Both are '' for an empty name.
    """
    if not op_name:
        return Origin("", "")
    phase = "update"
    for sign, name in _PHASES.items():
        if sign in op_name:
            phase = name
            break
    names = []
    for name in op_name.split("/"):
        method = re.search(r"\(Network\.(\w+)\)", name)
        if method:
            names.append(method.group(1))
            continue
        is_transformation = re.match(r"\w+\(.*\)$", name)
        if name and not is_transformation and name not in _STRUCTURE:
            names.append(name)
    if names[:2] in _REDUNDANT:
        del names[0]
    if not names:
        return Origin("", phase)
    *modules, operation = names
    return Origin(f"{'/'.join(modules)} {operation}".strip(), phase)
