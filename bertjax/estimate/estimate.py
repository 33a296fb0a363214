"""Cost of a train step on a slice, estimated by the TPU compiler: nothing here was measured."""

import re
import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jax.errors import JaxRuntimeError
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from bertjax.config import Config
from bertjax.errors import check, one_line
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary
from bertjax.estimate.cost.collectives import DevicePlacement
from bertjax.estimate.cost.memory import Memory, memory_of
from bertjax.estimate.cost.model_flops import ModelFlops, model_flops
from bertjax.estimate.cost.operations import (
    Collective,
    Operation,
    collectives_of,
    most_expensive,
)
from bertjax.estimate.cost.program_flops import program_flops
from bertjax.estimate.cost.schedule import Schedule, schedule
from bertjax.estimate.hardware.slices import Slice
from bertjax.estimate.program.hlo import parse
from bertjax.parallel.mesh import make_mesh
from bertjax.training.pretraining import pretraining
from bertjax.training.step import abstract_state, check_batch, lower_train_step

TOP_OPERATIONS = 10
"""Number of operations that an estimate lists."""


@dataclass(frozen=True)
class StepTime:
    """The compiler's estimate of a step and its parts, in seconds."""

    step: float
    """The whole step: the sum of the following, without `overlapped`."""
    compute: float
    """Instructions, by the compiler's cycles."""
    kernels: float
    """Custom kernels: their declared cost at the chip's peak FLOP/s or its memory bandwidth."""
    collectives: float
    """Collectives that the program waits for, at the links' bandwidth."""
    unestimated: float
    """Instructions without cycles, at the memory's bandwidth for their results."""
    overlapped: float
    """Collectives that run beside other work: not in `step`."""
    unestimated_count: int
    """The number of instructions without cycles."""
    unstated_kernels: int
    """Number of custom kernels without a declared cost; only their inputs and outputs count."""
    unknown_loops: tuple[str, ...]
    """Loops whose number of iterations is unknown; they are counted as one iteration."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of one compiled step; `compile.json` has its fields but `schedule`."""

    topology: str
    slices: int
    chip: str
    chips: int
    mesh: dict[str, int]
    batch_size: int
    """Rows of the global batch."""
    length: int
    remat: str
    dtype: str
    fits: bool
    """False if the step needs more memory than a chip has; then the fields below have no values."""
    refusal: str
    """The compiler's message if the step does not fit, else ''."""
    model_flops: ModelFlops
    compile_seconds: float
    memory: Memory | None = None
    timing: StepTime | None = None
    mfu: float | None = None
    """Model FLOP utilization: model FLOPs over those of the chips' peak in the estimated time."""
    program_flops: float | None = None
    """FLOPs of the program's matrix products outside kernels, on all devices.

    Products that are computed again for the backward pass are included.
    """
    tokens_per_second: float | None = None
    operations: tuple[Operation, ...] = ()
    collectives: tuple[Collective, ...] = ()
    schedule: Schedule | None = field(default=None, repr=False, compare=False)


class _Compilation(NamedTuple):
    """The result of the compiler: a program, or the reason why it does not fit."""

    program: Compiled | None
    refusal: str


def estimate(config: Config, slice_: Slice) -> Estimate:
    """Compile the train step of `config` for a slice and read its cost.

    Raises `UserError` where the mesh or the batch does not fit the devices. A step that does not
    fit into memory is an answer: `fits` is False then, and there are no timings.
    """
    check(
        not config.phases,
        where="phases",
        found=len(config.phases),
        expected="none: the configuration of one phase (phases_of)",
    )
    mesh = make_mesh(config.mesh, slice_.devices)
    check_batch(config, mesh)
    # State and batch are only shapes. No array is made, so even the largest model needs no memory.
    begin = time.perf_counter()
    objective = pretraining(config, abstract_vocabulary(config))
    state, batch = abstract_state(config, mesh, objective), abstract_batch(config, mesh)
    lowered = lower_train_step(config, mesh, objective, state, batch)
    program, refusal = _compile(lowered)
    result = Estimate(
        topology=slice_.topology,
        slices=slice_.slices,
        chip=slice_.chip.name,
        chips=len(slice_.devices),
        mesh=dict(mesh.shape),
        batch_size=config.train.batch_size,
        length=config.data.max_seq_length,
        remat=str(config.model.remat),
        dtype=config.model.dtype,
        fits=program is not None,
        refusal=refusal,
        model_flops=model_flops(config),
        compile_seconds=time.perf_counter() - begin,
    )
    if program is None:
        return result
    memory = memory_of(state, batch, program, slice_.chip.hbm_bytes)
    return _with_costs(replace(result, memory=memory), program, mesh, slice_)


def _with_costs(result: Estimate, program: Compiled, mesh: Mesh, slice_: Slice) -> Estimate:
    """Add the figures of a compiled step: its time, FLOPs, operations and collectives."""
    chip, chips = slice_.chip, len(slice_.devices)
    text = program.as_text()
    assert text is not None  # JAX's type; the TPU compiler always has one
    module = parse(text)
    step_schedule = schedule(module, _placement(mesh), chip)
    seconds = step_schedule.seconds
    return replace(
        result,
        timing=timing_of(step_schedule),
        mfu=result.model_flops.total / (seconds * chip.peak_flops * chips),
        # The text is one device's program; all run the same.
        program_flops=program_flops(module, step_schedule) * chips,
        tokens_per_second=result.batch_size * result.length / seconds,
        operations=most_expensive(step_schedule, TOP_OPERATIONS),
        collectives=collectives_of(step_schedule),
        schedule=step_schedule,
    )


def _placement(mesh: Mesh) -> DevicePlacement:
    """Return the slice of each device of a mesh; a single slice's devices have no number."""
    slices = [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]
    return DevicePlacement(mesh.shape, tuple(slices))


def _compile(lowered: Lowered) -> _Compilation:
    try:
        return _Compilation(lowered.compile(), "")
    except JaxRuntimeError as error:
        reason = one_line(error, limit=None)
        # Any other error is no answer to whether the step fits.
        if not reason.startswith("RESOURCE_EXHAUSTED"):
            raise
        # Newer compilers number their errors: RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out
        # of memory …
        return _Compilation(None, re.sub(r"^RESOURCE_EXHAUSTED: (E\d+: \w+: )?", "", reason))


def timing_of(step_schedule: Schedule) -> StepTime:
    """Group a schedule's seconds by the basis of their estimates."""
    costs = step_schedule.costs

    def seconds(*bases: str) -> float:
        return sum(cost.seconds * cost.times for cost in costs if cost.basis in bases)

    return StepTime(
        step=step_schedule.seconds,
        compute=seconds("cycles"),
        kernels=seconds("kernel", "kernel bytes"),
        collectives=seconds("collective"),
        unestimated=seconds("bytes"),
        overlapped=seconds("overlapped"),
        unestimated_count=sum(cost.basis == "bytes" for cost in costs),
        unstated_kernels=sum(cost.basis == "kernel bytes" for cost in costs),
        unknown_loops=step_schedule.unknown_loops,
    )
