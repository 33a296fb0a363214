"""An estimate in lines for the terminal."""

from collections.abc import Sequence

from bertjax.estimate.answer_fields import MEMORY
from bertjax.estimate.answers import Answer, LargestBatch
from bertjax.estimate.cost.memory import Memory
from bertjax.estimate.cost.operations import Collective, Operation
from bertjax.estimate.estimate import Estimate, StepTime

MOST = 12  # collectives to print
LABEL = "the TPU compiler's estimate, nothing of it measured"


def describe(found: Estimate) -> str:
    """All of an estimate, in lines."""
    lines = [heading(found), LABEL, ""]
    if not found.fits:
        return "\n".join([*lines, f"does not fit: {found.refusal}"])
    assert found.memory is not None
    assert found.timing is not None
    lines += [*_memory(found.memory), "", *_time(found, found.timing), ""]
    lines += [*_operations(found.operations), "", *_collectives(found.collectives)]
    return "\n".join(lines).rstrip()


def describe_answer(found: Answer) -> str:
    """The estimate, and the largest batch and the search where they were asked for."""
    parts = [describe(found.estimate)]
    if found.largest:
        parts.append(_largest(found.largest))
    if found.search:
        parts.append("\n".join(["layouts tried, the quickest first:", *map(brief, found.search)]))
    return "\n\n".join(parts)


def brief(found: Estimate) -> str:
    """An estimate in one line."""
    what = f"{_mesh(found, ' ')}, remat {found.remat}, batch {found.batch_size:,}"
    if not (found.fits and found.timing and found.memory):
        return f"  {what}: does not fit"
    return (
        f"  {what}: {milliseconds(found.timing.step)}, utilisation {found.mfu:.1%}, "
        f"{gigabytes(found.memory.total)} of {gigabytes(found.memory.available)}"
    )


def _largest(found: LargestBatch) -> str:
    refused = f", {found.refused:,} does not" if found.refused else " (no larger one was tried)"
    best = f":\n{brief(found.estimate)}" if found.estimate and found.estimate.fits else ""
    return f"largest batch: {found.batch_size:,} fits{refused}{best}"


def heading(found: Estimate) -> str:
    """What was compiled, in a line."""
    slices = f"{found.slices} x " if found.slices > 1 else ""
    return (
        f"{slices}{found.topology}: {found.chips} chips, {_mesh(found, ' x ')}; "
        f"batch {found.batch_size:,} x {found.length}, {found.dtype}, remat {found.remat}; "
        f"compiled in {found.compile_seconds:.0f} s"
    )


def _mesh(found: Estimate, between: str) -> str:
    return (
        between.join(f"{name} {size}" for name, size in found.mesh.items() if size > 1)
        or "one device"
    )


def gigabytes(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / 2**30:.2f} GiB"


def milliseconds(seconds: float) -> str:
    """Seconds as ms, three digits or more."""
    return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1 if seconds >= 0.01 else 3}f} ms"


def _memory(memory: Memory) -> list[str]:
    share = memory.total / memory.available
    total = f"memory of a device: {gigabytes(memory.total)} of {gigabytes(memory.available)} ({share:.0%})"
    return [
        total,
        *(f"  {name:<29}{gigabytes(getattr(memory, part)):>10}" for part, name in MEMORY.items()),
    ]


def _time(found: Estimate, timing: StepTime) -> list[str]:
    flops = found.model_flops
    extra = found.program_flops / flops.total - 1 if found.program_flops else 0.0
    lines = [
        f"step: {milliseconds(timing.step)}, {found.tokens_per_second:,.0f} tokens/s, "
        f"model FLOP utilisation {found.mfu:.1%}",
        f"  computation {milliseconds(timing.compute)}, kernels {milliseconds(timing.kernels)}, collectives "
        f"{milliseconds(timing.collectives)} (and {milliseconds(timing.overlapped)} beside other work), "
        f"{timing.unestimated_count} operations without cycles {milliseconds(timing.unestimated)}",
        f"  model {flops.total / 1e12:,.2f} TFLOP a step (layers {flops.layers / 1e12:,.2f}, attention "
        f"{flops.attention / 1e12:,.2f}, heads {flops.heads / 1e12:,.2f}); the program's products outside kernels "
        f"{found.program_flops / 1e12 if found.program_flops else 0:,.2f} ({extra:+.0%})",
    ]
    if timing.unstated_kernels:
        lines.append(
            f"  {timing.unstated_kernels} kernels state no cost: too little is counted for them"
        )
    if timing.unknown_loops:
        lines.append(
            f"  loops of unknown length, counted as one pass: {', '.join(timing.unknown_loops)}"
        )
    return lines


def _operations(operations: Sequence[Operation]) -> list[str]:
    rows = [
        f"  {row.share:>6.1%} {milliseconds(row.seconds):>10} {row.times:>4} x  {row.phase:<8} {row.where or '-'}"
        f"  [{row.name}{'' if row.basis == 'cycles' else ', by ' + row.basis}]"
        for row in operations
    ]
    return ["costliest operations (share of the step, time, runs):", *rows]


def _collectives(collectives: Sequence[Collective]) -> list[str]:
    if not collectives:
        return ["collectives: none"]
    shown, rest = collectives[:MOST], collectives[MOST:]
    rows = [
        f"  {milliseconds(row.seconds):>10} {row.times:>4} x {row.bytes / 1e6:>9,.2f} MB  {row.kind} over "
        f"{' x '.join(row.axes) or '-'}  {row.phase} {row.where}{'  (beside other work)' if row.overlapped else ''}"
        for row in shown
    ]
    if rest:
        rows.append(
            f"  {milliseconds(sum(row.seconds for row in rest)):>10} in {len(rest)} smaller ones"
        )
    return ["collectives (time by the links' bandwidth, runs, bytes of one):", *rows]
