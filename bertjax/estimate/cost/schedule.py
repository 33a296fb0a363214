"""Time of each instruction of a compiled program, and how often it runs."""

from dataclasses import dataclass, field

from bertjax.estimate.cost.collectives import DevicePlacement, Transfer, transfer_of
from bertjax.estimate.hardware.chips import Chip
from bertjax.estimate.program.hlo import Computation, Instruction, Module
from bertjax.estimate.program.loops import Caller, trip_count

# Instructions that take no time of their own.
_NO_WORK = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "domain",
    "add-dependency",
    "rng-get-and-update-state",
    "get-dimension-size",
}
# The compiler schedules asynchronous copies so early that no other instruction waits for them.
_ASYNCHRONOUS = {
    "copy-start",
    "copy-done",
    "slice-start",
    "slice-done",
    "dynamic-slice-start",
    "dynamic-slice-done",
    "async-update",
    "async-done",
    "send",
    "send-done",
    "recv",
    "recv-done",
}
FREE = _NO_WORK | _ASYNCHRONOUS
FREE_CALLS = {
    "ConcatBitcast",
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "Sharding",
}
"""Targets of custom calls that take no time."""
KERNEL = "tpu_custom_call"
"""Target of the custom calls that are Pallas kernels."""
# A choice by index names its branches in one attribute, a choice by a bool in two (openxla.org,
# operation semantics, Conditional).
_BRANCHES = ("branch_computations", "true_computation", "false_computation")


@dataclass(frozen=True)
class Cost:
    """The cost of one instruction in a step, on one device."""

    instruction: Instruction
    times: int
    """The number of its runs in a step."""
    seconds: float
    """The time of one run."""
    basis: str
    """The source of `seconds`.

    - `cycles`: the compiler's estimate
    - `kernel`: the cost that a custom kernel states
    - `kernel bytes`: the bytes of a custom kernel's result, if the kernel states no cost
    - `collective`: the bytes that a collective moves
    - `overlapped`: the bytes of a collective that the step does not wait for
    - `bytes`: the bytes of the instruction's result, if there is no estimate
    """
    op_name: str = ""
    """JAX's name of the traced operation that the instruction comes from, or ''."""
    transfer: Transfer | None = None
    """What a collective transfers; None for other instructions."""

    @property
    def total(self) -> float:
        """The time of all runs in a step, in seconds; 0 if the step does not wait for it."""
        return 0.0 if self.basis == "overlapped" else self.seconds * self.times


@dataclass(frozen=True)
class Schedule:
    """The instructions of a program with their costs, over all iterations of loops."""

    costs: tuple[Cost, ...]
    unknown_loops: tuple[str, ...]
    """Loops with an unknown number of iterations; each is counted as one iteration."""

    @property
    def seconds(self) -> float:
        """The estimated time of a step."""
        return sum(cost.total for cost in self.costs)


def schedule(module: Module, placement: DevicePlacement, chip: Chip) -> Schedule:
    """Follow the program as it runs; in a conditional, the most expensive branch counts."""
    walk = _Walk(module, placement, chip)
    costs = walk.costs_of(module.entry, times=1, caller=None)
    return Schedule(tuple(costs), tuple(walk.unknown_loops))


@dataclass
class _Walk:
    """A pass over the computations of a module, in the order in which they run."""

    module: Module
    placement: DevicePlacement
    chip: Chip
    unknown_loops: list[str] = field(default_factory=list)

    def costs_of(self, computation: Computation, times: int, caller: Caller | None) -> list[Cost]:
        """List the costs of a computation that runs `times` times in a step.

        `caller` is the loop whose body the computation is, if it is a body.
        """
        costs: list[Cost] = []
        for instruction in computation.instructions.values():
            match instruction.opcode:
                case "while":
                    costs += self._loop_costs(computation, instruction, times, caller)
                case "call":
                    called = self.module.computations[instruction.called("to_apply")[0]]
                    costs += self.costs_of(called, times, None)
                case "conditional":
                    costs += self._branch_costs(instruction, times)
                case _:
                    cost = _cost(self.module, instruction, self.placement, self.chip, times)
                    if cost is not None:
                        costs.append(cost)
        return costs

    def _loop_costs(
        self, computation: Computation, loop: Instruction, times: int, caller: Caller | None
    ) -> list[Cost]:
        iterations = trip_count(self.module, computation, loop, caller)
        if iterations is None:
            self.unknown_loops.append(loop.op_name or loop.name)
            iterations = 1
        body = self.module.computations[loop.called("body")[0]]
        return self.costs_of(body, times * iterations, Caller(computation, loop, caller))

    def _branch_costs(self, conditional: Instruction, times: int) -> list[Cost]:
        """List the costs of the most expensive branch, since it is unknown which one runs."""
        branches = []
        for kind in _BRANCHES:
            for name in conditional.called(kind):
                branches.append(self.costs_of(self.module.computations[name], times, None))
        return max(branches, key=_total_seconds, default=[])


def _total_seconds(costs: list[Cost]) -> float:
    return sum(cost.total for cost in costs)


def _cost(
    module: Module, instruction: Instruction, placement: DevicePlacement, chip: Chip, times: int
) -> Cost | None:
    """Return the cost of a single instruction; None if it takes no time of its own."""
    op_name = _op_name(module, instruction)
    transfer = transfer_of(module, instruction, placement, chip)
    if transfer is not None:
        basis = "overlapped" if transfer.overlapped else "collective"
        return Cost(instruction, times, transfer.seconds, basis, op_name, transfer)
    if instruction.cycles is not None:
        return Cost(instruction, times, instruction.cycles / chip.clock, "cycles", op_name)
    if instruction.target == KERNEL:
        seconds, basis = _kernel_seconds(instruction, chip)
        return Cost(instruction, times, seconds, basis, op_name)
    if _is_free(module, instruction):
        return None
    # The factor 2 is there because the result is written and about as much is read. Most of these
    # instructions are sorts and gathers.
    seconds = 2 * instruction.bytes / chip.hbm_bandwidth
    return Cost(instruction, times, seconds, "bytes", op_name)


def _is_free(module: Module, instruction: Instruction) -> bool:
    if instruction.opcode in FREE or instruction.target in FREE_CALLS:
        return True
    if all(shape.size <= 1 for shape in instruction.shapes):
        return True  # scalars
    return _ends_collective(module, instruction)


def _op_name(module: Module, instruction: Instruction) -> str:
    """Return JAX's name of the operation that an instruction comes from, or ''.

    A fusion without a name gets the name of the last instruction inside it that has one, which is
    the nearest to the fusion's result.
    """
    if instruction.op_name:
        return instruction.op_name
    for inner in reversed(module.called_instructions(instruction)):
        name = _op_name(module, inner)
        if name:
            return name
    return ""


def _kernel_seconds(instruction: Instruction, chip: Chip) -> tuple[float, str]:
    """Return a custom kernel's seconds and their basis.

    The seconds are FLOPs / peak or bytes / memory bandwidth of the chip, whichever is longer.
    """
    stated = instruction.config.get("custom_call_config", {}).get("cost_estimate")
    if not stated:
        return instruction.bytes / chip.hbm_bandwidth, "kernel bytes"
    flops, bytes_accessed = int(stated.get("flops", 0)), int(stated.get("bytes_accessed", 0))
    # Pallas copies blocks while it computes others, so the longer of the two counts.
    return max(flops / chip.peak_flops, bytes_accessed / chip.hbm_bandwidth), "kernel"


def _ends_collective(module: Module, instruction: Instruction) -> bool:
    """Return whether an instruction ends an asynchronous one, whose time counts at its start."""
    if instruction.opcode.endswith("-done"):
        return True
    inner = module.called_instructions(instruction)
    return any(i.target == "AsyncCollectiveDone" for i in inner)
