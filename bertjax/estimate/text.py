"""Estimates as lines of text for the terminal."""

from collections.abc import Sequence

from bertjax.estimate.answer_fields import MEMORY
from bertjax.estimate.answers import Answer, LargestBatch, PhaseEstimate
from bertjax.estimate.cost.memory import Memory
from bertjax.estimate.cost.operations import Collective, Operation
from bertjax.estimate.estimate import Estimate, StepTime
from bertjax.number_text import number_text

MAX_COLLECTIVES = 12
"""Number of collectives that are listed; of the others only the total time is given."""
LABEL = "the TPU compiler's estimate, nothing of it measured"


def describe(estimate: Estimate) -> str:
    """Return the whole estimate as lines of text."""
    lines = [heading(estimate), LABEL, ""]
    if not estimate.fits:
        return "\n".join([*lines, f"does not fit: {estimate.refusal}"])
    # For the type checker: an estimate of a step that fits has both.
    assert estimate.memory is not None
    assert estimate.timing is not None
    lines += [*_memory(estimate.memory), ""]
    lines += [*_time(estimate, estimate.timing), ""]
    lines += [*_operations(estimate.operations), ""]
    lines += _collectives(estimate.collectives)
    return "\n".join(lines).rstrip()


def describe_answer(answer: Answer) -> str:
    """Return the estimate and, if they were asked for, the largest batch and the search."""
    parts = [describe(answer.estimate)]
    if answer.phases:
        parts[0] = f"phase 1 of {len(answer.phases)}\n{parts[0]}"
        parts.append(_phases(answer.phases))
    if answer.largest:
        parts.append(_largest(answer.largest))
    if answer.search:
        parts.append("\n".join(["layouts tried, the quickest first:", *map(brief, answer.search)]))
    return "\n\n".join(parts)


def brief(estimate: Estimate) -> str:
    """Return an estimate in one line."""
    layout = f"{_mesh(estimate, ' ')}, remat {estimate.remat}, batch {estimate.batch_size:,}"
    if not (estimate.fits and estimate.timing and estimate.memory):
        return f"  {layout}: does not fit"
    return (
        f"  {layout}: {milliseconds(estimate.timing.step)}, utilization {estimate.mfu:.1%}, "
        f"{gibibytes(estimate.memory.total)} of {gibibytes(estimate.memory.available)}"
    )


def _phases(phases: Sequence[PhaseEstimate]) -> str:
    """Return a line for each phase, and the time of the run."""
    lines = ["phases (steps, time of all of them, one step):"]
    for phase in phases:
        one = phase.estimate
        hours = "-" if phase.seconds is None else _hours(phase.seconds)
        lines.append(
            f"  {phase.number:>3} {phase.steps:>12,} {hours:>12}  "
            f"{one.batch_size:,} x {one.length:,}{brief(one)}"
        )
    seconds = [phase.seconds for phase in phases]
    if None not in seconds:
        lines.append(f"  the run: {_hours(sum(filter(None, seconds)))}")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h"


def _largest(largest: LargestBatch) -> str:
    text = f"largest batch: {largest.batch_size:,} fits"
    if largest.refused:
        text += f", {largest.refused:,} does not"
    else:
        text += " (no larger one was tried)"
    if largest.estimate and largest.estimate.fits:
        text += f":\n{brief(largest.estimate)}"
    return text


def heading(estimate: Estimate) -> str:
    """Return the compiled slice, mesh and batch in one line."""
    slices = f"{estimate.slices} x " if estimate.slices > 1 else ""
    return (
        f"{slices}{estimate.topology}: {estimate.chips} chips, {_mesh(estimate, ' x ')}; "
        f"batch {estimate.batch_size:,} x {estimate.length}, {estimate.dtype}, "
        f"remat {estimate.remat}; compiled in {estimate.compile_seconds:.0f} s"
    )


def _mesh(estimate: Estimate, separator: str) -> str:
    axes = [f"{name} {size}" for name, size in estimate.mesh.items() if size > 1]
    return separator.join(axes) or "one device"


def gibibytes(byte_count: float) -> str:
    """Return a number of bytes as GiB."""
    return f"{byte_count / 2**30:.2f} GiB"


def milliseconds(seconds: float) -> str:
    """Return seconds as ms, with three digits or more."""
    if seconds >= 0.1:
        decimals = 0
    elif seconds >= 0.01:
        decimals = 1
    else:
        decimals = 3
    return f"{1e3 * seconds:,.{decimals}f} ms"


def _memory(memory: Memory) -> list[str]:
    share = memory.total / memory.available
    lines = [
        f"memory of a device: {gibibytes(memory.total)} of {gibibytes(memory.available)} "
        f"({share:.0%})"
    ]
    for field, label in MEMORY.items():
        lines.append(f"  {label:<29}{gibibytes(getattr(memory, field)):>10}")
    return lines


def _time(estimate: Estimate, timing: StepTime) -> list[str]:
    flops = estimate.model_flops
    products, extra = 0.0, 0.0
    if estimate.program_flops:
        products = estimate.program_flops
        extra = products / flops.total - 1
    lines = [
        f"step: {milliseconds(timing.step)}, {estimate.tokens_per_second:,.0f} tokens/s, "
        f"model FLOP utilization {estimate.mfu:.1%}",
        f"  computation {milliseconds(timing.compute)}, kernels {milliseconds(timing.kernels)}, "
        f"collectives {milliseconds(timing.collectives)} "
        f"(and {milliseconds(timing.overlapped)} beside other work), "
        f"{timing.unestimated_count} operations without cycles {milliseconds(timing.unestimated)}",
        f"  model {_teraflop(flops.total)} TFLOP a step (layers {_teraflop(flops.layers)}, "
        f"attention {_teraflop(flops.attention)}, heads {_teraflop(flops.heads)}); "
        f"the program's products outside kernels {_teraflop(products)} "
        f"({number_text(extra, '+.0%')})",
    ]
    if timing.unstated_kernels:
        lines.append(
            f"  {timing.unstated_kernels} kernels state no cost: too little is counted for them"
        )
    if timing.unknown_loops:
        loops = ", ".join(timing.unknown_loops)
        lines.append(f"  loops of unknown length, counted as one pass: {loops}")
    return lines


def _teraflop(flops: float) -> str:
    return f"{flops / 1e12:,.2f}"


def _operations(operations: Sequence[Operation]) -> list[str]:
    lines = ["most expensive operations (share of the step, time, runs):"]
    for operation in operations:
        basis = "" if operation.basis == "cycles" else f", by {operation.basis}"
        lines.append(
            f"  {operation.share:>6.1%} {milliseconds(operation.seconds):>10} "
            f"{operation.times:>4} x  {operation.phase:<8} {operation.where or '-'}"
            f"  [{operation.name}{basis}]"
        )
    return lines


def _collectives(collectives: Sequence[Collective]) -> list[str]:
    if not collectives:
        return ["collectives: none"]
    lines = ["collectives (time by the links' bandwidth, runs, bytes of one):"]
    for collective in collectives[:MAX_COLLECTIVES]:
        axes = " x ".join(collective.axes) or "-"
        overlapped = "  (beside other work)" if collective.overlapped else ""
        lines.append(
            f"  {milliseconds(collective.seconds):>10} {collective.times:>4} x "
            f"{collective.bytes / 1e6:>9,.2f} MB  {collective.kind} over "
            f"{axes}  {collective.phase} {collective.where}{overlapped}"
        )
    rest = collectives[MAX_COLLECTIVES:]
    if rest:
        seconds = sum(collective.seconds for collective in rest)
        lines.append(f"  {milliseconds(seconds):>10} in {len(rest)} smaller ones")
    return lines
