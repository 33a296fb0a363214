"""What each instruction of a compiled program costs in time, and how often it runs."""

from dataclasses import dataclass

from bertjax.estimate.cost.collectives import DevicePlacement, Transfer, transfer
from bertjax.estimate.hardware.chips import Chip
from bertjax.estimate.program.hlo import Computation, Instruction, Module
from bertjax.estimate.program.loops import Caller, trip_count

# Instructions that take no time of their own: names for what is there, and asynchronous copies,
# which the compiler schedules to be done when they are needed.
FREE = {
    *(
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
    ),
    *("opt-barrier", "domain", "add-dependency", "rng-get-and-update-state", "get-dimension-size"),
    *(
        "copy-start",
        "copy-done",
        "slice-start",
        "slice-done",
        "dynamic-slice-start",
        "dynamic-slice-done",
    ),
    *("async-update", "async-done", "send", "send-done", "recv", "recv-done"),
}
FREE_CALLS = {
    "ConcatBitcast",
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "Sharding",
}
KERNEL = "tpu_custom_call"


@dataclass(frozen=True)
class Cost:
    """One instruction's part of a step, on one device."""

    instruction: Instruction
    times: int
    """How often it runs in a step."""
    seconds: float
    """Of one run."""
    basis: str
    """What `seconds` is from: the compiler's `cycles`; a `kernel`'s stated cost, or its bytes where
    it states none (`kernel bytes`); the bytes of a `collective`; of one that is `overlapped`,
    which the step does not wait for; or, where there is no estimate, the `bytes` of its result.
    """
    op_name: str = ""
    """Where in the traced program it comes from, or ''."""
    moved: Transfer | None = None

    @property
    def total(self) -> float:
        """Seconds of the step that it takes."""
        return 0.0 if self.basis == "overlapped" else self.seconds * self.times


@dataclass(frozen=True)
class Schedule:
    """The program's instructions with their costs, loops multiplied."""

    costs: tuple[Cost, ...]
    unknown_loops: tuple[str, ...]
    """Loops whose number of passes the text does not say; they are counted as one pass."""

    @property
    def seconds(self) -> float:
        """The estimated time of a step."""
        return sum(cost.total for cost in self.costs)


def schedule(module: Module, layout: DevicePlacement, chip: Chip) -> Schedule:
    """Go through the program as it runs. Of a conditional's branches the dearest counts."""
    unknown: list[str] = []
    costs = _walk(module, module.entry, layout, chip, 1, None, unknown)
    return Schedule(tuple(costs), tuple(unknown))


def _walk(
    module: Module,
    computation: Computation,
    layout: DevicePlacement,
    chip: Chip,
    times: int,
    caller: Caller | None,
    unknown: list[str],
) -> list[Cost]:
    costs: list[Cost] = []

    def inside(name: str, passes: int, caller: Caller | None) -> list[Cost]:
        return _walk(
            module, module.computations[name], layout, chip, times * passes, caller, unknown
        )

    for instruction in computation.instructions.values():
        if instruction.opcode == "while":
            passes = trip_count(module, computation, instruction, caller)
            if passes is None:
                unknown.append(instruction.op_name or instruction.name)
            within = Caller(computation, instruction, caller)
            costs += inside(instruction.called("body")[0], 1 if passes is None else passes, within)
        elif instruction.opcode == "call":
            costs += inside(instruction.called("to_apply")[0], 1, None)
        elif instruction.opcode == "conditional":
            kinds = ("branch_computations", "true_computation", "false_computation")
            branches = [
                inside(name, 1, None) for kind in kinds for name in instruction.called(kind)
            ]
            costs += max(branches, key=lambda found: sum(cost.total for cost in found), default=[])
        else:
            cost = _cost(module, instruction, layout, chip, times)
            if cost is not None:
                costs.append(cost)
    return costs


def _cost(
    module: Module, instruction: Instruction, layout: DevicePlacement, chip: Chip, times: int
) -> Cost | None:
    """The cost of an instruction that calls nothing; None where it takes no time."""
    origin = _origin(module, instruction)
    moved = transfer(module, instruction, layout, chip)
    if moved is not None:
        basis = "overlapped" if moved.overlapped else "collective"
        return Cost(instruction, times, moved.seconds, basis, origin, moved)
    if instruction.cycles is not None:
        return Cost(instruction, times, instruction.cycles / chip.clock, "cycles", origin)
    if instruction.target == KERNEL:
        seconds, basis = _kernel(instruction, chip)
        return Cost(instruction, times, seconds, basis, origin)
    scalar = all(shape.size <= 1 for shape in instruction.shapes)
    if (
        instruction.opcode in FREE
        or instruction.target in FREE_CALLS
        or scalar
        or _ends_collective(module, instruction)
    ):
        return None
    # Written and, about as much, read: most of these are sorts and gathers.
    return Cost(instruction, times, 2 * instruction.bytes / chip.hbm_bandwidth, "bytes", origin)


def _origin(module: Module, instruction: Instruction) -> str:
    """The traced operation that an instruction is from; of a fusion without a name, its last that
    has one.
    """
    if instruction.op_name:
        return instruction.op_name
    inside = (
        i
        for name in instruction.called("calls")
        for i in module.computations[name].instructions.values()
    )
    return next((name for i in reversed(list(inside)) if (name := _origin(module, i))), "")


def _kernel(instruction: Instruction, chip: Chip) -> tuple[float, str]:
    """A custom kernel at the chip's peak or its memory's bandwidth, whichever takes longer."""
    stated = instruction.config.get("custom_call_config", {}).get("cost_estimate")
    if stated:
        flops, moved = int(stated.get("flops", 0)), int(stated.get("bytes_accessed", 0))
        return max(flops / chip.peak_flops, moved / chip.hbm_bandwidth), "kernel"
    return instruction.bytes / chip.hbm_bandwidth, "kernel bytes"


def _ends_collective(module: Module, instruction: Instruction) -> bool:
    inner = [
        i
        for name in instruction.called("calls")
        for i in module.computations[name].instructions.values()
    ]
    return instruction.opcode.endswith("-done") or any(
        i.target == "AsyncCollectiveDone" for i in inner
    )
