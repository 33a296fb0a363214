"""A schedule as a person reads it: the costliest operations, and the collectives."""

import re
from dataclasses import dataclass

from bertjax.estimate.cost.schedule import Schedule


@dataclass(frozen=True)
class Operation:
    """One instruction of the compiled program."""

    name: str
    where: str
    """The part of the model that it is from."""
    phase: str
    """forward, again (computed again for the backward pass), backward, or update."""
    times: int
    seconds: float
    """Of all its runs in a step."""
    share: float
    """Of the step's time."""
    basis: str


@dataclass(frozen=True)
class Collective:
    """A collective of the compiled program."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes that it joins."""
    bytes: int
    """Of one run, on each device."""
    times: int
    seconds: float
    """Of all its runs in a step."""
    overlapped: bool
    where: str
    phase: str


def most_expensive(schedule: Schedule, most: int) -> tuple[Operation, ...]:
    """The `most` operations that take the largest share of a step."""
    step = schedule.seconds
    ranked = sorted(schedule.costs, key=lambda cost: -cost.total)[:most]
    return tuple(
        Operation(
            cost.instruction.name,
            *where_and_phase(cost.op_name),
            cost.times,
            cost.total,
            cost.total / step,
            cost.basis,
        )
        for cost in ranked
        if cost.total > 0
    )


def collectives_of(schedule: Schedule) -> tuple[Collective, ...]:
    """Every collective, the longest first."""
    found = [
        Collective(
            cost.moved.kind,
            cost.moved.axes,
            cost.moved.bytes,
            cost.times,
            cost.moved.seconds * cost.times,
            cost.moved.overlapped,
            *where_and_phase(cost.op_name),
        )
        for cost in schedule.costs
        if cost.moved is not None
    ]
    return tuple(sorted(found, key=lambda collective: -collective.seconds))


_CALLED = {"closed_call", "eval_jaxpr"}  # as JAX 0.10 and 0.12 name the same
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


def where_and_phase(op_name: str) -> tuple[str, str]:
    """From JAX's name of an operation, such as
    `jit(step)/transpose(jvp(f))/encoder/while/body/mlp/dot_general`, the part of the model,
    `encoder/mlp dot_general`, and the phase, `backward`.
    """
    if not op_name:
        return "", ""
    signs = {"rematted_computation": "again", "transpose(": "backward", "jvp(": "forward"}
    phase = next((phase for sign, phase in signs.items() if sign in op_name), "update")
    names = []
    for name in op_name.split("/"):
        method = re.search(r"\(_Bert\.(\w+)\)", name)
        if method:
            names.append(method.group(1))
        elif name and not re.match(r"\w+\(.*\)$", name) and name not in _STRUCTURE:
            names.append(name)
    if names[:2] in (
        ["encode", "encoder"],
        ["encode", "embeddings"],
        ["mlm_logits", "mlm"],
        ["mlm_cross_entropy", "mlm"],
    ):
        del names[0]
    return ("/".join(names[:-1]) + " " + names[-1]).strip() if names else "", phase
