"""What a training step would cost on a slice, by the TPU compiler: nothing here was measured."""

import re
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from bertjax.config import Config
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary
from bertjax.estimate.cost.collectives import DevicePlacement
from bertjax.estimate.cost.memory import Memory, memory_of
from bertjax.estimate.cost.model_flops import ModelFlops, model_flops
from bertjax.estimate.cost.operations import Collective, Operation, collectives_of, most_expensive
from bertjax.estimate.cost.program_flops import program_flops
from bertjax.estimate.cost.schedule import Schedule, schedule
from bertjax.estimate.hardware.slices import Slice
from bertjax.estimate.program.hlo import parse
from bertjax.parallel.mesh import make_mesh
from bertjax.training.pretraining import pretraining
from bertjax.training.step import abstract_state, check_batch, lower_train_step

TOP = 10


@dataclass(frozen=True)
class StepTime:
    """The compiler's estimate of a step, in seconds, and what it is made of."""

    step: float
    """The whole: what follows, but `overlapped`."""
    compute: float
    """By the compiler's cycles."""
    kernels: float
    """Custom kernels, at the chip's peak or its memory's bandwidth for the cost that they state."""
    collectives: float
    """Collectives that the program waits for, at the links' bandwidth."""
    unestimated: float
    """Instructions without cycles, at the memory's bandwidth for their results."""
    overlapped: float
    """Collectives that run beside other work: not in `step`."""
    unestimated_count: int
    unstated_kernels: int
    """Custom kernels that state no cost; of those only the bytes that go in and out are counted."""
    unknown_loops: tuple[str, ...]
    """Loops of which the program does not say how often they run; counted as once."""


@dataclass(frozen=True)
class Estimate:
    """One compiled step."""

    topology: str
    slices: int
    chip: str
    chips: int
    mesh: dict[str, int]
    batch_size: int
    length: int
    remat: str
    dtype: str
    fits: bool
    refusal: str
    """The compiler's words where it does not fit."""
    model_flops: ModelFlops
    compile_seconds: float
    memory: Memory | None = None
    timing: StepTime | None = None
    mfu: float | None = None
    """Model FLOPs over what the chips could do at their peak in the estimated time."""
    program_flops: float | None = None
    """FLOPs of the program's matrix products outside kernels, on all devices, what is computed
    again included.
    """
    tokens_per_second: float | None = None
    operations: tuple[Operation, ...] = ()
    collectives: tuple[Collective, ...] = ()
    schedule: Schedule | None = field(default=None, repr=False, compare=False)


def estimate(config: Config, slice_: Slice) -> Estimate:
    """Compile the train step of `config` for a slice and read what it would cost.

    Raises `UserError` where the mesh or the batch does not fit the devices. A step that does not
    fit into memory is an answer: `fits` is False then, and there are no timings.
    """
    mesh = make_mesh(config.mesh, slice_.devices)
    check_batch(config, mesh)
    begin = time.perf_counter()
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    objective = pretraining(config, abstract_vocabulary(config))
    lowered = lower_train_step(config, mesh, objective, state, batch)
    compiled, refusal = _compile(lowered)
    about: dict[str, Any] = {
        "topology": slice_.topology,
        "slices": slice_.slices,
        "chip": slice_.chip.name,
        "chips": len(slice_.devices),
        "mesh": dict(mesh.shape),
        "batch_size": config.train.batch_size,
        "length": config.data.max_seq_length,
        "remat": str(config.model.remat),
        "dtype": config.model.dtype,
        "fits": compiled is not None,
        "refusal": refusal,
        "model_flops": model_flops(config),
        "compile_seconds": time.perf_counter() - begin,
    }
    if compiled is None:
        return Estimate(**about)
    chip = slice_.chip
    module = parse(compiled.as_text())
    layout = DevicePlacement(
        mesh.shape, tuple(getattr(device, "slice_index", 0) or 0 for device in mesh.devices.flat)
    )
    found = schedule(module, layout, chip)
    step = found.seconds
    return Estimate(
        **about,
        memory=memory_of(state, batch, compiled, chip.hbm_bytes),
        timing=timing_of(found),
        mfu=about["model_flops"].total / (step * chip.peak_flops * about["chips"]),
        program_flops=program_flops(module, found) * len(slice_.devices),
        tokens_per_second=config.train.batch_size * config.data.max_seq_length / step,
        operations=most_expensive(found, TOP),
        collectives=collectives_of(found),
        schedule=found,
    )


def _compile(lowered: jax.stages.Lowered) -> tuple[Any, str]:
    """The compiled step and '', or None and why it does not fit."""
    try:
        return lowered.compile(), ""
    except JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        if not reason.startswith("RESOURCE_EXHAUSTED"):
            raise
        # Newer compilers number their errors: RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out
        # of memory …
        return None, re.sub(r"^RESOURCE_EXHAUSTED: (E\d+: \w+: )?", "", reason)


def timing_of(found: Schedule) -> StepTime:
    """A schedule's seconds by what they are from."""

    def seconds(*bases: str) -> float:
        return sum(cost.seconds * cost.times for cost in found.costs if cost.basis in bases)

    return StepTime(
        step=found.seconds,
        compute=seconds("cycles"),
        kernels=seconds("kernel", "kernel bytes"),
        collectives=seconds("collective"),
        unestimated=seconds("bytes"),
        overlapped=seconds("overlapped"),
        unestimated_count=sum(cost.basis == "bytes" for cost in found.costs),
        unstated_kernels=sum(cost.basis == "kernel bytes" for cost in found.costs),
        unknown_loops=found.unknown_loops,
    )
